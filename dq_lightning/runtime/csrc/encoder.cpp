#include "encoder.h"

#include <algorithm>

namespace dq {
namespace {

// Rows whose feed-forward activations fit into a core's second-level cache.
constexpr int kChunkRows = 96;
constexpr Member kAlone{nullptr, 0, 1};

}  // namespace

Encoder::Scratch::Scratch(const Model& model, const Ops& ops, int rows, int keys)
    : projector(ops, rows, std::max({model.width, model.encoder.layers[0].self.width(),
                                     model.encoder.layers[0].feed_forward.inner()})),
      // `look` writes the encoder's keys with it, `remember` those of the cross attention.
      attention(ops,
                std::max(model.encoder.layers[0].self.heads, model.decoder.layers[0].cross.heads),
                std::max(model.encoder.layers[0].self.head_width,
                         model.decoder.layers[0].cross.head_width),
                rows, keys),
      projected(int64_t{rows} * std::max(3 * model.encoder.layers[0].self.width(),
                                         2 * model.decoder.layers[0].cross.width())),
      context(int64_t{rows} * model.encoder.layers[0].self.width()),
      inner(int64_t{rows} * model.encoder.layers[0].feed_forward.input.outputs),
      out(int64_t{rows} * model.width),
      hidden(int64_t{rows} * model.width),
      row(model.width) {}

Encoder::Encoder(const Model& model, const Ops& ops, const Sequences& sentences,
                 const int32_t* tokens, int threads)
    : model_(model),
      ops_(ops),
      sentences_(sentences),
      tokens_(tokens),
      shape_(model.encoder.layers[0].self),
      bias_(bias_by_distance(model.encoder, shape_.heads, sentences.longest)),
      next_chunk_(model.encoder.layers.size() + 1),
      x_(int64_t{sentences.rows} * model.width) {
  const std::vector<Layer>& layers = model.encoder.layers;
  const int64_t queries = int64_t{shape_.heads} * sentences.places;
  const auto in_integers = [](const Layer& layer) { return layer.self.query.largest_code > 0; };
  if (std::any_of(layers.begin(), layers.end(), in_integers))
    query_codes_ = CodeBuffer(queries, shape_.head_width);
  if (!std::all_of(layers.begin(), layers.end(), in_integers))
    query_values_ = Buffer<float>(queries * shape_.head_width);
  // While some threads still read a layer's keys and values, others write those of the next.
  const bool alike = std::all_of(layers.begin(), layers.end(), [this](const Layer& layer) {
    return layer.self.key == shape_.key && layer.self.value == shape_.value;
  });
  const size_t buffers = alike ? std::min<size_t>(2, layers.size()) : layers.size();
  for (size_t i = 0; i < buffers; i++) own_.emplace_back(sentences, layers[i].self, false);
  split(threads);
}

// Long sentences into parts of equal size, as many for each thread; short ones together.
void Encoder::split(int threads) {
  for (int number = 0; number < sentences_.size(); number++) {
    const int length = sentences_.lengths[static_cast<size_t>(number)];
    const int first_row = sentences_.first_row[static_cast<size_t>(number)];
    if (!chunks_.empty() && chunks_.back().rows + length <= kChunkRows) {
      chunks_.back().rows += length;
      chunks_.back().pieces.push_back({number, 0, length});
      continue;
    }
    const int rounds = (length + kChunkRows * threads - 1) / (kChunkRows * threads);
    const int parts = length <= kBlock ? 1 : rounds * threads;
    int begin = 0;
    for (int part = 1; part <= parts && begin < length; part++) {
      const int64_t end = round_up(int64_t{length} * part / parts, kBlock);
      const int stop = part == parts ? length : static_cast<int>(std::min<int64_t>(end, length));
      if (stop == begin) continue;
      chunks_.push_back({first_row + begin, stop - begin, {{number, begin, stop - begin}}});
      begin = stop;
    }
  }
  for (const Chunk& chunk : chunks_) most_rows_ = std::max(most_rows_, chunk.rows);
}

template <typename Work>
void Encoder::for_each_chunk(int phase, const Work& work) {
  std::atomic<int>& next = next_chunk_[static_cast<size_t>(phase)];
  const int chunks = static_cast<int>(chunks_.size());
  for (int number = next++; number < chunks; number = next++)
    work(chunks_[static_cast<size_t>(number)]);
}

void Encoder::run(const Member& member, std::vector<KeyValues>& memory) {
  Scratch scratch(model_, ops_, most_rows_, sentences_.longest);
  const int layers = static_cast<int>(model_.encoder.layers.size());
  for_each_chunk(0, [&](const Chunk& chunk) {
    embed_chunk(chunk, scratch);
    look(0, chunk, scratch);
  });
  for (int layer = 0; layer < layers; layer++) {
    member.meet();
    for_each_chunk(layer + 1, [&](const Chunk& chunk) {
      finish(layer, chunk, scratch);
      if (layer + 1 < layers) {
        look(layer + 1, chunk, scratch);
      } else {
        remember(chunk, memory, scratch);
      }
    });
  }
  member.meet();
}

void Encoder::embed_chunk(const Chunk& chunk, Scratch& scratch) {
  const Stack& stack = model_.encoder;
  const int width = model_.width;
  float* x = rows_of(chunk);
  for (const Piece& piece : chunk.pieces) {
    const int32_t* sentence = tokens_ + sentences_.first_row[static_cast<size_t>(piece.sequence)];
    int position = piece.first - static_cast<int>(std::count(sentence, sentence + piece.first,
                                                             stack.unplaced_token));
    for (int i = 0; i < piece.rows; i++, x += width) {
      const int32_t token = sentence[piece.first + i];
      embed(stack, token, position, width, scratch.row.data(), x);
      position += token != stack.unplaced_token;
    }
  }
  x = rows_of(chunk);
  if (stack.embedding_norm.weight)
    apply(ops_, stack.embedding_norm, x, nullptr, chunk.rows, width, nullptr, x);
  if (model_.norm_first)
    apply(ops_, stack.layers[0].self.norm, x, nullptr, chunk.rows, width, nullptr,
          scratch.hidden.data());
}

void Encoder::look(int layer, const Chunk& chunk, Scratch& scratch) {
  const Attention& attention = model_.encoder.layers[static_cast<size_t>(layer)].self;
  const float* x = model_.norm_first ? scratch.hidden.data() : rows_of(chunk);
  const int inner = attention.width(), stride = 3 * inner;
  const float* row = scratch.projected.data();
  scratch.projector.apply(attention.query_key_value, x, model_.width, chunk.rows, kAlone,
                          scratch.projected.data(), stride);
  for (const Piece& piece : chunk.pieces) {
    for (int head = 0; head < attention.heads; head++) {
      const int64_t place = place_of(head, piece);
      make_queries(ops_, row + head * attention.head_width, stride, piece.rows,
                   attention.head_width, attention.scaling, attention.query,
                   query_codes(place, piece.rows), query_values(place));
    }
    own_[static_cast<size_t>(layer) % own_.size()].write(
        attention, piece, row + inner, row + 2 * inner, stride, scratch.attention);
    row += int64_t{piece.rows} * stride;
  }
}

int64_t Encoder::place_of(int head, const Piece& piece) const {
  return int64_t{head} * sentences_.places +
         sentences_.place[static_cast<size_t>(piece.sequence)] + piece.first;
}

Int8Rows Encoder::query_codes(int64_t place, int rows) {
  Int8Rows codes = query_codes_.rows(rows, shape_.head_width);
  if (!codes.codes) return codes;  // no layer has any
  codes.codes += place * codes.stride;
  codes.scale += place;
  codes.sum += place;
  return codes;
}

float* Encoder::query_values(int64_t place) {
  return query_values_.data() ? query_values_.data() + place * shape_.head_width : nullptr;
}

void Encoder::attend_piece(int layer, const Piece& piece, float* context, Scratch& scratch) {
  const Attention& attention = model_.encoder.layers[static_cast<size_t>(layer)].self;
  const KeyValues& own = own_[static_cast<size_t>(layer) % own_.size()];
  const int longest = sentences_.longest;
  for (int head = 0; head < attention.heads; head++) {
    const int64_t place = place_of(head, piece);
    Queries queries{query_codes(place, piece.rows), query_values(place), attention.head_width};
    if (attention.query.largest_code == 0) queries.codes.codes = nullptr;
    const int64_t own_bias = int64_t{head} * (2 * longest + 1) + longest - piece.first;
    attend(queries, piece.rows, own.keys(piece.sequence, head), own.values(piece.sequence, head),
           attention.probabilities, bias_.empty() ? nullptr : bias_.data() + own_bias, -1,
           scratch.attention, context + head * attention.head_width, attention.width());
  }
}

void Encoder::finish(int layer, const Chunk& chunk, Scratch& scratch) {
  const Stack& stack = model_.encoder;
  const size_t number = static_cast<size_t>(layer);
  const Attention& attention = stack.layers[number].self;
  const FeedForward& block = stack.layers[number].feed_forward;
  const int width = model_.width, rows = chunk.rows, inner = block.inner();
  const bool first = model_.norm_first;
  float *x = rows_of(chunk), *out = scratch.out.data(), *hidden = first ? scratch.hidden.data() : x;
  float* context = scratch.context.data();
  for (const Piece& piece : chunk.pieces) {
    attend_piece(layer, piece, context, scratch);
    context += int64_t{piece.rows} * attention.width();
  }
  scratch.projector.apply(attention.output, scratch.context.data(), attention.width(), rows, kAlone,
                          out, width);
  const Norm& between = first ? block.norm : attention.norm;
  apply(ops_, between, x, out, rows, width, first ? x : nullptr, hidden);
  float* activations = scratch.inner.data();
  const int stride = block.input.outputs;
  scratch.projector.apply(block.input, hidden, width, rows, kAlone, activations, stride);
  if (block.gated) {
    for (int row = 0; row < rows; row++) {
      float* own = activations + int64_t{row} * stride;
      ops_.activate(block.activation, own, own + inner, inner);
    }
  } else {
    ops_.activate(block.activation, activations, nullptr, int64_t{rows} * inner);
  }
  scratch.projector.apply(block.output, activations, stride, rows, kAlone, out, width);
  const bool last = number + 1 == stack.layers.size();
  if (!first) {
    apply(ops_, block.norm, x, out, rows, width, nullptr, x);
  } else if (last) {
    apply(ops_, stack.final_norm, x, out, rows, width, nullptr, x);
  } else {
    apply(ops_, stack.layers[number + 1].self.norm, x, out, rows, width, x, hidden);
  }
}

void Encoder::remember(const Chunk& chunk, std::vector<KeyValues>& memory, Scratch& scratch) {
  for (size_t layer = 0; layer < memory.size(); layer++) {
    const Attention& attention = model_.decoder.layers[layer].cross;
    const int inner = attention.width(), stride = 2 * inner;
    scratch.projector.apply(attention.key_value, rows_of(chunk), model_.width, chunk.rows, kAlone,
                            scratch.projected.data(), stride);
    const float* row = scratch.projected.data();
    for (const Piece& piece : chunk.pieces) {
      memory[layer].write(attention, piece, row, row + inner, stride, scratch.attention);
      row += int64_t{piece.rows} * stride;
    }
  }
}

}  // namespace dq
