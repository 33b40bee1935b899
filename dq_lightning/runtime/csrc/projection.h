// Linear layers over float rows, with the quantization of their inputs.
#pragma once

#include <algorithm>

#include "buffer.h"
#include "model.h"
#include "threads.h"

namespace dq {

// One thread's memory for the inputs of linear layers, and the layers' arithmetic.
class Projector {
 public:
  Projector(const Ops& ops, int most_rows, int most_columns)
      : ops_(ops),
        codes_(most_rows, most_columns),
        floats_(int64_t{most_rows} * most_columns) {}

  // out[m] = every layer of x[m] * factor, side by side; of each layer's blocks of 16 outputs only
  // the share of `member`.
  void apply(const Projection& projection, const float* x, int64_t x_stride, int rows,
             const Member& member, float* out, int64_t out_stride) {
    const Linear* before = nullptr;
    for (const Linear& linear : projection.parts) {
      const bool same = before && before->input == linear.input;
      apply(linear, x, x_stride, rows, 1.0f, same, member, out + linear.first, out_stride);
      before = &linear;
    }
  }

  // One layer; `prepared`: the layer before had the same input.
  void apply(const Linear& linear, const float* x, int64_t x_stride, int rows, float factor,
             bool prepared, const Member& member, float* out, int64_t out_stride) {
    const Matrix& weight = linear.weight;
    const int blocks = num_blocks(weight.rows);
    const int first = member.begin(blocks), last = member.end(blocks);
    const Int8Rows codes = codes_.rows(rows, weight.columns);
    if (linear.input.largest_code == 0) {
      if (factor != 1.0f) {
        x = scaled(x, x_stride, rows, weight.columns, factor);
        x_stride = weight.columns;
      }
      ops_.float_linear(weight, x, x_stride, rows, first, last, out, out_stride);
      return;
    }
    if (!prepared) ops_.quantize_rows(x, x_stride, factor, linear.input, codes);
    if (weight.bits != 32) {
      ops_.linear(weight, codes, first, last, out, out_stride);
      return;
    }
    // A float weight of a quantized input.
    const Vectors vectors{weight.columns, codes.stride, 1,      codes.codes,
                          codes.scale,    nullptr,      nullptr};
    dequantize_vectors(vectors, rows, floats_.data());
    ops_.float_linear(weight, floats_.data(), weight.columns, rows, first, last, out, out_stride);
  }

 private:
  const float* scaled(const float* x, int64_t x_stride, int rows, int columns, float factor) {
    for (int row = 0; row < rows; row++)
      std::transform(x + row * x_stride, x + row * x_stride + columns,
                     floats_.data() + int64_t{row} * columns,
                     [factor](float value) { return value * factor; });
    return floats_.data();
  }

  const Ops& ops_;
  CodeBuffer codes_;
  Buffer<float> floats_;
};

}  // namespace dq
