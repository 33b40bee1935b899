// One description for every encoder-decoder of BART's and of T5's kind.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "buffer.h"
#include "ops.h"

namespace dq {

// What a model is made of, by name: the matrices and numbers that runtime/native.py sets.
class Parts {
 public:
  // Copies row-major fields (floats where bits is 32) into the kernel layout. scale, zero_point:
  // one a row or null.
  void add_matrix(const std::string& name, const Matrix& row_major, bool divides);
  void add_numbers(const std::string& name, const float* values, int64_t n);
  // Another name for a matrix, or for numbers.
  void add_name(const std::string& name, const std::string& of);

  bool has(const std::string& name) const;
  // These throw std::invalid_argument where the name is missing or its size is another.
  Matrix matrix(const std::string& name, int64_t rows, int64_t columns) const;
  const float* numbers(const std::string& name, int64_t n) const;
  float number(const std::string& name) const { return *numbers(name, 1); }
  int integer(const std::string& name) const { return static_cast<int>(number(name)); }
  int64_t size(const std::string& name) const;  // rows of a matrix, or how many numbers
  int64_t bytes() const { return bytes_; }

 private:
  const float* keep(const float* values, int64_t n);
  std::map<std::string, Matrix> matrices_;
  std::map<std::string, std::pair<const float*, int64_t>> numbers_;
  std::vector<Buffer<uint8_t>> fields_;
  std::vector<Buffer<float>> floats_;
  int64_t bytes_ = 0;
};

inline bool operator==(const RowQuantizer& a, const RowQuantizer& b) {
  return a.largest_code == b.largest_code && a.clip == b.clip;
}

struct Linear {
  Matrix weight;  // with its bias
  RowQuantizer input;
  int first;  // column of the projection's output where its own begin
};

// Linear layers of one input, side by side.
struct Projection {
  std::vector<Linear> parts;
  int inputs = 0, outputs = 0;
};

struct Norm {
  const float* weight = nullptr;  // null: there is no such norm
  const float* bias = nullptr;    // null: T5's RMS norm
  float epsilon = 0.0f;
};

struct Attention {
  Projection query_key_value;  // of a decoder's cross attention: the query alone
  Projection key_value;        // of a decoder's cross attention, from the encoder's output
  Projection output;
  RowQuantizer query, key, value, probabilities;
  Norm norm;
  int heads = 0, head_width = 0;
  float scaling = 1.0f;  // of queries
  int width() const { return heads * head_width; }
};

struct FeedForward {
  Projection input, output;
  Norm norm;
  Activation activation = kRelu;
  bool gated = false;
  int inner() const { return output.inputs; }
};

struct Layer {
  Attention self, cross;  // an encoder's layer has no cross attention
  FeedForward feed_forward;
};

struct Stack {
  Matrix embedding, positions;
  int num_positions = 0;    // 0: none
  int position_offset = 0;  // row of the position of the first token
  int unplaced_token = -1;  // has no position of its own, but the row before the first; -1: none
  float embed_scale = 1.0f;
  Norm embedding_norm, final_norm;
  std::vector<Layer> layers;
  // Added to the scores by head and distance, key minus query, from -far to far; beyond it the
  // outermost values hold. Null: nothing is added.
  const float* relative_bias = nullptr;
  int far = 0;
};

inline void apply(const Ops& ops, const Norm& norm, const float* x, const float* residual, int rows,
                  int columns, float* sum, float* out) {
  ops.norm(x, residual, rows, columns, norm.weight, norm.bias, norm.epsilon, norm.bias != nullptr,
           sum, out);
}

// The scaled embedding of a token plus that of its position; `room` for one row.
void embed(const Stack& stack, int32_t token, int position, int width, float* room, float* out);

struct Model {
  explicit Model(const Parts& parts);
  int width, vocabulary;
  bool norm_first;  // before each block, not after its residual sum
  float logits_scale;
  Stack encoder, decoder;
  Linear head;
};

}  // namespace dq
