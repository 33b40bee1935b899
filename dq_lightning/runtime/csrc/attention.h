// Attention of quantized or float operands.
#pragma once

#include <vector>

#include "buffer.h"
#include "model.h"

namespace dq {

// Some sequences that lie behind each other without padding. In arrays for keys each begins at a
// multiple of 16, at `place`.
struct Sequences {
  explicit Sequences(std::vector<int> sequence_lengths);
  int size() const { return static_cast<int>(lengths.size()); }
  std::vector<int> lengths, first_row, place;
  int rows = 0, places = 0, longest = 0;
};

// A stretch of one sequence; `first` is a multiple of 16.
struct Piece {
  int sequence, first, rows;
};

// One thread's memory for attention.
class AttentionScratch {
 public:
  AttentionScratch(const Ops& ops, int heads, int head_width, int most_rows, int most_keys);
  const Ops& ops;
  CodeBuffer codes;            // of queries, keys or values of one head, or of all heads of one row
  Buffer<float> floats;        // as many
  Buffer<float> scores;        // kQueriesTogether rows
  Buffer<float> factor;        // of each row of the scores
};

constexpr int kQueriesTogether = 2 * kRowsTogether;

// Queries of one head, as codes or, where those are null, as floats.
struct Queries {
  Int8Rows codes;
  const float* values;
  int64_t stride;
};

// The queries of one head: rows * factor, quantized where `quantizer` says so.
Queries make_queries(const Ops& ops, const float* x, int64_t stride, int rows, int columns,
                     float factor, RowQuantizer quantizer, Int8Rows codes, float* floats);

// Keys and values of one attention layer over some sequences, by sequence and head.
class KeyValues {
 public:
  // keep_codes: values stay int8 where they are quantized (for few queries at a time).
  KeyValues(const Sequences& sequences, const Attention& attention, bool keep_codes);
  // Rows of all heads' keys and values, side by side in rows of `stride` floats.
  void write(const Attention& attention, const Piece& piece, const float* key, const float* value,
             int64_t stride, AttentionScratch& scratch);
  Matrix keys(int sequence, int head) const;
  Vectors values(int sequence, int head) const;

 private:
  int64_t place(int sequence, int head) const;
  void write_keys(const Attention& attention, int64_t place, int rows, const float* key,
                  int64_t stride, AttentionScratch& scratch);
  void write_values(const Attention& attention, int64_t place, int rows, const float* value,
                    int64_t stride, AttentionScratch& scratch);
  const Sequences& sequences_;
  const int heads_, columns_;
  const bool int8_keys_, int8_values_;
  const int64_t key_bytes_, code_stride_;  // of one key, of one value's codes
  Buffer<uint8_t> key_fields_;
  Buffer<float> key_scale_, value_scale_, values_;
  Buffer<int8_t> value_codes_;
};

// out[m] = softmax(query m . keys + bias) values. bias (or null) of query m begins at
// bias + m * bias_stride.
void attend(const Queries& queries, int rows, const Matrix& keys, const Vectors& values,
            RowQuantizer probabilities, const float* bias, int64_t bias_stride,
            AttentionScratch& scratch, float* out, int64_t out_stride);

// A stack's relative bias of a head at a distance, key minus query.
float bias_at(const Stack& stack, int head, int distance);

// The same for every distance up to `longest`, head by head (empty: the stack has none): entry
// head * (2 longest + 1) + longest + (key - query).
std::vector<float> bias_by_distance(const Stack& stack, int heads, int longest);

}  // namespace dq
