#include "decoder.h"

#include <algorithm>

namespace dq {
namespace {

int widest(const Model& model) {
  const Layer& layer = model.decoder.layers[0];
  return std::max({model.width, layer.self.width(), layer.feed_forward.inner()});
}

}  // namespace

Decoder::Scratch::Scratch(const Model& model, const Ops& ops, int rows, int keys)
    : projector(ops, rows, widest(model)),
      attention(ops, model.decoder.layers[0].self.heads, model.decoder.layers[0].self.head_width,
                rows, keys),
      x(int64_t{rows} * model.width),
      hidden(int64_t{rows} * model.width),
      row(model.width) {}

Decoder::Cache::Cache(const Attention& attention, int64_t vectors) {
  const int64_t numbers = vectors * attention.head_width;
  const int64_t codes = vectors * round_up(attention.head_width, kCodesPad);
  if (attention.key.largest_code > 0) {
    key_codes = Buffer<int8_t>(codes);
    key_scale = Buffer<float>(vectors);
  } else {
    key_values = Buffer<float>(numbers);
  }
  if (attention.value.largest_code > 0) {
    value_codes = Buffer<int8_t>(codes);
    value_scale = Buffer<float>(vectors);
  } else {
    value_values = Buffer<float>(numbers);
  }
}

Decoder::Decoder(const Model& model, const Ops& ops, const Sequences& sentences,
                 const std::vector<KeyValues>& memory, int slots, int most_positions, int threads)
    : model_(model),
      ops_(ops),
      memory_(memory),
      shape_(model.decoder.layers[0].self),
      slots_(slots),
      most_positions_(most_positions),
      logits_stride_(round_up(model.vocabulary, kBlock)),
      ancestors_(int64_t{slots} * most_positions),
      next_ancestors_(int64_t{slots} * most_positions),
      projected_(int64_t{slots} * 3 * shape_.width()),
      context_(int64_t{slots} * shape_.width()),
      inner_(int64_t{slots} * model.decoder.layers[0].feed_forward.input.outputs),
      out_(int64_t{slots} * model.width),
      logits_(slots * logits_stride_) {
  for (int i = 0; i < threads; i++)
    scratch_.emplace_back(model, ops, slots, std::max(sentences.longest, most_positions));
  for (const Layer& layer : model.decoder.layers)
    cache_.emplace_back(layer.self, int64_t{most_positions} * slots * shape_.heads);
  for (int slot = 0; slot < slots; slot++) ancestors_[int64_t{slot} * most_positions] = slot;
  if (model.decoder.relative_bias) bias_ = Buffer<float>(int64_t{shape_.heads} * most_positions);
  prepare(0);
}

// What a step of `position` reads beyond that of the one before.
void Decoder::prepare(int position) {
  if (!bias_.data() || position >= most_positions_) return;
  for (int head = 0; head < shape_.heads; head++)
    bias_[int64_t{head + 1} * most_positions_ - 1 - position] =
        bias_at(model_.decoder, head, -position);
}

void Decoder::keep(int slot, int parent, int position) {
  const int32_t* from = ancestors_.data() + int64_t{parent} * most_positions_;
  int32_t* to = next_ancestors_.data() + int64_t{slot} * most_positions_;
  std::copy(from, from + position + 1, to);
  if (position + 1 < most_positions_) to[position + 1] = (position + 1) * slots_ + slot;
}

void Decoder::commit(int position) {
  std::swap(ancestors_, next_ancestors_);
  prepare(position + 1);
}

void Decoder::step(const Member& member, const std::vector<Row>& rows, int position) {
  Scratch& scratch = scratch_[static_cast<size_t>(member.index)];
  const Stack& stack = model_.decoder;
  const int n = static_cast<int>(rows.size()), width = model_.width;
  float* hidden = model_.norm_first ? scratch.hidden.data() : scratch.x.data();
  embed_rows(rows, position, scratch);
  for (size_t layer = 0; layer < stack.layers.size(); layer++) {
    const Layer& own = stack.layers[layer];
    scratch.projector.apply(own.self.query_key_value, hidden, width, n, member, projected_.data(),
                            3 * shape_.width());
    member.meet();
    attend_self(layer, member, rows, position, scratch);
    member.meet();
    scratch.projector.apply(own.self.output, context_.data(), shape_.width(), n, member,
                            out_.data(), width);
    member.meet();
    add(own.self.norm, own.cross.norm, n, scratch);
    scratch.projector.apply(own.cross.query_key_value, hidden, width, n, member,
                            projected_.data(), shape_.width());
    member.meet();
    attend_cross(layer, member, rows, scratch);
    member.meet();
    scratch.projector.apply(own.cross.output, context_.data(), shape_.width(), n, member,
                            out_.data(), width);
    member.meet();
    add(own.cross.norm, own.feed_forward.norm, n, scratch);
    feed_forward(own.feed_forward, member, n, scratch);
    const bool last = layer + 1 == stack.layers.size();
    add(own.feed_forward.norm, last ? stack.final_norm : stack.layers[layer + 1].self.norm, n,
        scratch);
  }
  scratch.projector.apply(model_.head, hidden, width, n, model_.logits_scale, false, member,
                          logits_.data(), logits_stride_);
  member.meet();
}

void Decoder::embed_rows(const std::vector<Row>& rows, int position, Scratch& scratch) {
  const Stack& stack = model_.decoder;
  const int width = model_.width, n = static_cast<int>(rows.size());
  float* x = scratch.x.data();
  for (int i = 0; i < n; i++)
    embed(stack, rows[static_cast<size_t>(i)].token, position, width, scratch.row.data(),
          x + int64_t{i} * width);
  if (stack.embedding_norm.weight)
    apply(ops_, stack.embedding_norm, x, nullptr, n, width, nullptr, x);
  if (model_.norm_first)
    apply(ops_, stack.layers[0].self.norm, x, nullptr, n, width, nullptr, scratch.hidden.data());
}

void Decoder::add(const Norm& own, const Norm& next, int rows, Scratch& scratch) {
  float* x = scratch.x.data();
  if (model_.norm_first) {
    apply(ops_, next, x, out_.data(), rows, model_.width, x, scratch.hidden.data());
  } else {
    apply(ops_, own, x, out_.data(), rows, model_.width, nullptr, x);
  }
}

void Decoder::attend_self(size_t layer, const Member& member, const std::vector<Row>& rows,
                          int position, Scratch& scratch) {
  const int heads = shape_.heads, n = static_cast<int>(rows.size());
  const int first = member.begin(n * heads), last = member.end(n * heads);
  for (int number = first / heads; number * heads < last; number++) {
    const int first_head = std::max(0, first - number * heads);
    const int last_head = std::min(heads, last - number * heads);
    attend_self_row(layer, number, rows[static_cast<size_t>(number)], first_head, last_head,
                    position, scratch);
  }
}

void Decoder::attend_self_row(size_t layer, int number, const Row& row, int first_head,
                              int last_head, int position, Scratch& scratch) {
  const Attention& attention = model_.decoder.layers[layer].self;
  const int heads = attention.heads, columns = attention.head_width, inner = attention.width();
  Cache& cache = cache_[layer];
  const int64_t code_stride = round_up(columns, kCodesPad);
  const int32_t* index = ancestors_.data() + int64_t{row.slot} * most_positions_;
  const float* projected = projected_.data() + int64_t{number} * 3 * inner;
  store(attention, cache, index[position], first_head, last_head, projected + inner,
        projected + 2 * inner, scratch);
  const int n = position + 1, some = last_head - first_head;
  const Queries queries = make_queries(ops_, projected + first_head * columns, columns, some,
                                       columns, attention.scaling, attention.query,
                                       scratch.attention.codes.rows(some, columns),
                                       scratch.attention.floats.data());
  float *scores = scratch.attention.scores.data(), *factor = scratch.attention.factor.data();
  for (int head = first_head; head < last_head; head++) {
    const int own = head - first_head;
    const Int8Rows& codes = queries.codes;
    Vectors query{columns, 0, 0, nullptr, nullptr, nullptr, nullptr};
    if (codes.codes) {
      query.codes = codes.codes + own * codes.stride;
      query.scale = codes.scale + own;
    } else {
      query.values = queries.values + own * queries.stride;
    }
    const auto cached = [&](const Buffer<int8_t>& vectors, const Buffer<float>& scale,
                            const Buffer<float>& values) -> Vectors {
      if (!vectors.data())
        return {columns, inner, heads, nullptr, nullptr, values.data() + head * columns, index};
      return {columns, heads * code_stride, heads, vectors.data() + head * code_stride,
              scale.data() + head, nullptr, index};
    };
    ops_.dots(query, cached(cache.key_codes, cache.key_scale, cache.key_values), n, scores);
    const float* bias =
        bias_.data() ? bias_.data() + int64_t{head + 1} * most_positions_ - n : nullptr;
    ops_.softmax(scores, round_up(n, kBlock), 1, n, bias, 0, attention.probabilities, factor);
    ops_.weighted_sum(scores, round_up(n, kBlock), 1, n, factor,
                      cached(cache.value_codes, cache.value_scale, cache.value_values),
                      context_.data() + int64_t{number} * inner + head * columns, inner);
  }
}

// Keys and values of some heads of one row: into their place in the cache.
void Decoder::store(const Attention& attention, Cache& cache, int64_t place, int first_head,
                    int last_head, const float* key, const float* value, Scratch& scratch) {
  const int columns = attention.head_width, some = last_head - first_head;
  const int64_t code_stride = round_up(columns, kCodesPad);
  const int64_t vector = place * attention.heads + first_head;
  const auto put = [&](const float* from, RowQuantizer quantizer, Buffer<int8_t>& codes,
                       Buffer<float>& scale, Buffer<float>& values) {
    from += first_head * columns;
    if (quantizer.largest_code == 0) {
      std::copy(from, from + some * columns, values.data() + vector * columns);
      return;
    }
    Int8Rows rows = scratch.attention.codes.rows(some, columns);
    rows.codes = codes.data() + vector * code_stride;
    rows.scale = scale.data() + vector;
    ops_.quantize_rows(from, columns, 1.0f, quantizer, rows);
  };
  put(key, attention.key, cache.key_codes, cache.key_scale, cache.key_values);
  put(value, attention.value, cache.value_codes, cache.value_scale, cache.value_values);
}

void Decoder::attend_cross(size_t layer, const Member& member, const std::vector<Row>& rows,
                           Scratch& scratch) {
  const Attention& attention = model_.decoder.layers[layer].cross;
  const KeyValues& memory = memory_[layer];
  const int heads = attention.heads, columns = attention.head_width, inner = attention.width();
  std::vector<int>& begins = scratch.sentence_begins;
  begins.clear();
  for (int row = 0; row < static_cast<int>(rows.size()); row++)
    if (row == 0 || rows[static_cast<size_t>(row)].sentence !=
                        rows[static_cast<size_t>(row) - 1].sentence)
      begins.push_back(row);
  const int sentences = static_cast<int>(begins.size());
  begins.push_back(static_cast<int>(rows.size()));
  for (int task = member.begin(sentences * heads); task < member.end(sentences * heads); task++) {
    const int head = task % heads;
    const size_t group = static_cast<size_t>(task / heads);
    const int first = begins[group], some = begins[group + 1] - first;
    const int sentence = rows[static_cast<size_t>(first)].sentence;
    const int64_t place = int64_t{first} * inner + head * columns;
    const Queries queries = make_queries(ops_, projected_.data() + place, inner, some, columns,
                                         attention.scaling, attention.query,
                                         scratch.attention.codes.rows(some, columns),
                                         scratch.attention.floats.data());
    attend(queries, some, memory.keys(sentence, head), memory.values(sentence, head),
           attention.probabilities, nullptr, 0, scratch.attention, context_.data() + place, inner);
  }
}

void Decoder::feed_forward(const FeedForward& block, const Member& member, int rows,
                           Scratch& scratch) {
  const float* x = model_.norm_first ? scratch.hidden.data() : scratch.x.data();
  const int stride = block.input.outputs;
  scratch.projector.apply(block.input, x, model_.width, rows, member, inner_.data(), stride);
  // This member's columns, and where there is a gate those of the gate.
  const int inner = block.inner(), blocks = num_blocks(inner);
  const int first = member.begin(blocks) * kBlock;
  const int last = std::min(inner, member.end(blocks) * kBlock);
  for (int row = 0; row < rows && first < last; row++) {
    float* own = inner_.data() + int64_t{row} * stride + first;
    ops_.activate(block.activation, own, block.gated ? own + inner : nullptr, last - first);
  }
  member.meet();
  scratch.projector.apply(block.output, inner_.data(), stride, rows, member, out_.data(),
                          model_.width);
  member.meet();
}

}  // namespace dq
