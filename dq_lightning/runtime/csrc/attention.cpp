#include "attention.h"

#include <algorithm>

namespace dq {

Sequences::Sequences(std::vector<int> sequence_lengths) : lengths(std::move(sequence_lengths)) {
  for (const int length : lengths) {
    first_row.push_back(rows);
    place.push_back(places);
    rows += length;
    places += static_cast<int>(round_up(length, kBlock));
    longest = std::max(longest, length);
  }
}

AttentionScratch::AttentionScratch(const Ops& ops, int heads, int head_width, int most_rows,
                                   int most_keys)
    : ops(ops),
      codes(std::max(heads, most_rows), head_width),
      floats(int64_t{std::max(heads, most_rows)} * head_width),
      scores(kQueriesTogether * round_up(most_keys, kBlock)),
      factor(kQueriesTogether) {}

Queries make_queries(const Ops& ops, const float* x, int64_t stride, int rows, int columns,
                     float factor, RowQuantizer quantizer, Int8Rows codes, float* floats) {
  if (quantizer.largest_code > 0) {
    ops.quantize_rows(x, stride, factor, quantizer, codes);
    return {codes, nullptr, 0};
  }
  for (int row = 0; row < rows; row++)
    for (int column = 0; column < columns; column++)
      floats[int64_t{row} * columns + column] = x[row * stride + column] * factor;
  codes.codes = nullptr;
  return {codes, floats, columns};
}

KeyValues::KeyValues(const Sequences& sequences, const Attention& attention, bool keep_codes)
    : sequences_(sequences),
      heads_(attention.heads),
      columns_(attention.head_width),
      int8_keys_(attention.key.largest_code > 0),
      int8_values_(keep_codes && attention.value.largest_code > 0),
      key_bytes_(dq_packed_bytes(kBlock, columns_, int8_keys_ ? 8 : 32) / kBlock),
      code_stride_(round_up(columns_, kCodesPad)) {
  const int64_t vectors = int64_t{heads_} * sequences.places;
  key_fields_ = Buffer<uint8_t>(vectors * key_bytes_);
  if (int8_keys_) key_scale_ = Buffer<float>(vectors);
  if (int8_values_) {
    value_codes_ = Buffer<int8_t>(vectors * code_stride_);
    value_scale_ = Buffer<float>(vectors);
  } else {
    values_ = Buffer<float>(vectors * columns_);
  }
}

int64_t KeyValues::place(int sequence, int head) const {
  const size_t number = static_cast<size_t>(sequence);
  return int64_t{heads_} * sequences_.place[number] +
         head * round_up(sequences_.lengths[number], kBlock);
}

void KeyValues::write(const Attention& attention, const Piece& piece, const float* key,
                      const float* value, int64_t stride, AttentionScratch& scratch) {
  for (int head = 0; head < heads_; head++) {
    const int64_t own = place(piece.sequence, head) + piece.first;
    write_keys(attention, own, piece.rows, key + head * columns_, stride, scratch);
    write_values(attention, own, piece.rows, value + head * columns_, stride, scratch);
  }
}

void KeyValues::write_keys(const Attention& attention, int64_t place, int rows, const float* key,
                           int64_t stride, AttentionScratch& scratch) {
  uint8_t* fields = key_fields_.data() + place * key_bytes_;
  if (!int8_keys_) {
    float_keys_matrix(key, stride, rows, columns_, fields);
    return;
  }
  Int8Rows codes = scratch.codes.rows(rows, columns_);
  codes.scale = key_scale_.data() + place;
  scratch.ops.quantize_rows(key, stride, 1.0f, attention.key, codes);
  keys_matrix(codes, fields);
}

void KeyValues::write_values(const Attention& attention, int64_t place, int rows,
                             const float* value, int64_t stride, AttentionScratch& scratch) {
  if (attention.value.largest_code == 0) {
    const Vectors floats{columns_, stride, 1, nullptr, nullptr, value, nullptr};
    dequantize_vectors(floats, rows, values_.data() + place * columns_);
    return;
  }
  Int8Rows codes = scratch.codes.rows(rows, columns_);
  if (int8_values_) {
    codes.codes = value_codes_.data() + place * code_stride_;
    codes.scale = value_scale_.data() + place;
  }
  scratch.ops.quantize_rows(value, stride, 1.0f, attention.value, codes);
  if (int8_values_) return;
  const Vectors vectors{columns_, codes.stride, 1, codes.codes, codes.scale, nullptr, nullptr};
  dequantize_vectors(vectors, rows, values_.data() + place * columns_);
}

Matrix KeyValues::keys(int sequence, int head) const {
  const int64_t own = place(sequence, head);
  const int rows = sequences_.lengths[static_cast<size_t>(sequence)];
  const void* fields = key_fields_.data() + own * key_bytes_;
  if (!int8_keys_) return {rows, columns_, 32, 0, fields, nullptr, nullptr, nullptr, nullptr};
  const float* scale = key_scale_.data() + own;
  return {rows, columns_, 8, -128, fields, scale, nullptr, nullptr, nullptr};
}

Vectors KeyValues::values(int sequence, int head) const {
  const int64_t own = place(sequence, head);
  if (!int8_values_)
    return {columns_, columns_, 1, nullptr, nullptr, values_.data() + own * columns_, nullptr};
  return {columns_, code_stride_, 1, value_codes_.data() + own * code_stride_,
          value_scale_.data() + own, nullptr, nullptr};
}

void attend(const Queries& queries, int rows, const Matrix& keys, const Vectors& values,
            RowQuantizer probabilities, const float* bias, int64_t bias_stride,
            AttentionScratch& scratch, float* out, int64_t out_stride) {
  const Ops& ops = scratch.ops;
  const int blocks = num_blocks(keys.rows);
  const int64_t stride = round_up(keys.rows, kBlock);
  float* scores = scratch.scores.data();
  for (int first = 0; first < rows; first += kQueriesTogether) {
    const int some = std::min(kQueriesTogether, rows - first);
    if (queries.codes.codes) {
      Int8Rows codes = queries.codes;
      codes.rows = some;
      codes.codes += first * codes.stride;
      codes.scale += first;
      codes.sum += first;
      ops.linear(keys, codes, 0, blocks, scores, stride);
    } else {
      const float* own = queries.values + first * queries.stride;
      ops.float_linear(keys, own, queries.stride, some, 0, blocks, scores, stride);
    }
    const float* own_bias = bias ? bias + first * bias_stride : nullptr;
    ops.softmax(scores, stride, some, keys.rows, own_bias, bias_stride, probabilities,
                scratch.factor.data());
    ops.weighted_sum(scores, stride, some, keys.rows, scratch.factor.data(), values,
                     out + first * out_stride, out_stride);
  }
}

float bias_at(const Stack& stack, int head, int distance) {
  const int near = std::clamp(distance, -stack.far, stack.far);
  return stack.relative_bias[head * (2 * stack.far + 1) + stack.far + near];
}

std::vector<float> bias_by_distance(const Stack& stack, int heads, int longest) {
  std::vector<float> bias;
  if (!stack.relative_bias) return bias;
  for (int head = 0; head < heads; head++)
    for (int distance = -longest; distance <= longest; distance++)
      bias.push_back(bias_at(stack, head, distance));
  return bias;
}

}  // namespace dq
