// The contract between the kernels (ops_*.cpp, one table of functions per instruction set) and the
// engine. Nothing here allocates, locks or throws. Strides count numbers, not bytes. Buffers should
// begin at multiples of 64 bytes (speed only). "Padded" arrays must be readable, whatever they
// hold, up to the next multiple of 16 entries.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dq {

constexpr int kBlock = 16;       // rows of a matrix that a kernel computes together
constexpr int kCodesPad = 64;    // strides of int8 rows are multiples of this
constexpr int kRowsTogether = 12;  // rows of activations that a kernel computes together

constexpr int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
constexpr int num_blocks(int rows) { return (rows + kBlock - 1) / kBlock; }

// A weight matrix (or attention keys: a matrix with one row a key) in the kernel layout:
//   value[row][column] = (field + lowest - zero_point[row]) * scale[row]
// bits 1, 2, 4, 8: fields of that many bits, [rows / 16][columns / (4 G)][16][4] bytes, G = 8 /
//   bits; bits [j bits, (j+1) bits) of byte (b, k, o, i) hold row 16 b + o, column 4 G k + 4 j + i.
// bits 32: floats, [rows / 16][columns][16]; lowest, scale, divisor and zero_point unused.
// Rows and columns that only fill a block up hold fields that no result depends on.
struct Matrix {
  int32_t rows, columns, bits;
  int32_t lowest;
  const void* fields;
  const float* scale;       // padded; what an integer product is multiplied by
  const float* divisor;     // padded or null: a single value is code / divisor, to the last bit
                            // (scale = 1 / divisor then)
  const float* zero_point;  // padded or null (0); need not be an integer
  const float* bias;        // padded or null: of a linear layer
};

// Rows of int8 codes, value = code * scale[row]. Codes from `columns` up to `stride` are 0.
struct Int8Rows {
  int32_t rows, columns;
  int64_t stride;  // a multiple of kCodesPad
  int8_t* codes;
  float* scale;    // padded where the rows become keys
  int32_t* sum;    // of each row's codes
};

// Vectors of `columns` numbers: int8 codes with one scale each, or floats (codes == null). Vector i
// begins at index[i] * stride (index == null: i * stride), its scale is scale[that * scale_stride].
struct Vectors {
  int32_t columns;
  int64_t stride, scale_stride;
  const int8_t* codes;
  const float* scale;
  const float* values;
  const int32_t* index;
};

// A symmetric quantizer of activations, one scale a row:
//   codes = round_half_even(x * r), r = largest_code / max|x|, clamped to +-largest_code where clip
// is below infinity (max|x| is then at most clip). largest_code 0: no quantizer.
struct RowQuantizer {
  int32_t largest_code;  // 2^(bits - 1) - 1
  float clip;            // infinity: none
};

enum Activation : int32_t { kRelu = 0, kGelu = 1, kGeluNew = 2, kSilu = 3 };

// One table per instruction set; all give the same integers, and floats equal to rounding.
struct Ops {
  const char* name;

  // Quantizes x * factor (rounded to float first, as a student that scales its queries does).
  // Sets codes (and the zeros up to the stride), scale = 1 / r and sum; out.rows and out.columns
  // say how much. Equal to quantization/symmetric.py bit for bit.
  void (*quantize_rows)(const float* x, int64_t x_stride, float factor, RowQuantizer quantizer,
                        const Int8Rows& out);

  // The exact integers of a product: out[m][row] = sum over columns of (field + lowest) * code.
  // Of the matrix' blocks of 16 rows first_block <= b < last_block, as in the two below.
  void (*accumulate)(const Matrix& weight, const Int8Rows& x, int first_block, int last_block,
                     int32_t* out, int64_t out_stride);

  // out[m][row] = scale[row] * x.scale[m] * (integer - zero_point[row] * x.sum[m]) + bias[row].
  // Attention scores too: weight = keys_matrix(...), x = the queries.
  void (*linear)(const Matrix& weight, const Int8Rows& x, int first_block, int last_block,
                 float* out, int64_t out_stride);

  // The same product in floats, for any bits (values as dequantize_row gives them).
  void (*float_linear)(const Matrix& weight, const float* x, int64_t x_stride, int rows,
                       int first_block, int last_block, float* out, int64_t out_stride);

  // scores[i] = query . key i, i < n; exact integers times both scales where both are int8,
  // else both must be floats. `query` is one vector. For a decoder's cache, row by row.
  void (*dots)(const Vectors& query, const Vectors& keys, int n, float* scores);

  // Softmax over n keys a row, in place, unnormalized: writes weights, and in `factor` (one a row)
  // what a sum of weights * values is multiplied by: exp(s - max s) and 1 / sum, or with a
  // quantizer the codes of the probabilities (as floats) and their scale. bias (or null) is added
  // to the scores first; a bias_stride of 0 gives every row the same.
  void (*softmax)(float* scores, int64_t stride, int rows, int n, const float* bias,
                  int64_t bias_stride, RowQuantizer quantizer, float* factor);

  // out[m] = factor[m] * sum over i < n of weights[m][i] * value i. int8 values overwrite the
  // weights (by weight * scale). Fastest for many rows: floats, multiples of kRowsTogether rows.
  void (*weighted_sum)(float* weights, int64_t stride, int rows, int n, const float* factor,
                       const Vectors& values, float* out, int64_t out_stride);

  // sum = x + residual (residual null: x), out = (sum - mean) / sqrt(variance + epsilon) * weight
  // + bias; centred false: no mean and no bias (T5's RMS norm). Rows are dense. sum may be null
  // and may be x or residual; out may be any of them.
  void (*norm)(const float* x, const float* residual, int rows, int columns, const float* weight,
               const float* bias, float epsilon, bool centred, float* sum, float* out);

  // x = f(x), and with `gate` (or null) x = f(x) * gate.
  void (*activate)(Activation f, float* x, const float* gate, int64_t n);

  float (*log_sum_exp)(const float* x, int n);

  // The k largest, descending; equal ones in the order of their indices. Never NaN; k <= n.
  void (*top_k)(const float* x, int n, int k, float* values, int32_t* indices);
};

// The table of an instruction set ("portable", "avx2", "avxvnni", "avx512"), or the best one that
// this machine can run where `name` is null. null: unknown, or this machine cannot run it.
extern "C" const Ops* dq_ops(const char* name);

extern "C" {
// Layouts and single values, the same on every machine (ops_layout.cpp).

// Bytes that a matrix' fields take in the kernel layout.
int64_t dq_packed_bytes(int32_t rows, int32_t columns, int32_t bits);
// From row-major fields of 1, 2, 4 or 8 bits, low bits first, each row beginning at a whole byte.
void dq_pack(const uint8_t* row_major, int32_t rows, int32_t columns, int32_t bits, void* fields);
// From row-major floats (bits 32).
void dq_pack_floats(const float* row_major, int32_t rows, int32_t columns, void* fields);
// From int8 rows: fields of 8 bits, code + 128. Rows that only fill a block up are left alone.
void dq_pack_keys(const dq::Int8Rows* keys, void* fields);
// One row as the student's values to the last bit: an embedding.
void dq_dequantize_row(const dq::Matrix* matrix, int32_t row, float* out);
}

// Keys as an 8-bit matrix in `fields` (dq_packed_bytes(rows, columns, 8)), which keeps pointing to
// the rows' scales.
Matrix keys_matrix(const Int8Rows& keys, void* fields);
// Keys that stay floats, as a matrix for float_linear.
Matrix float_keys_matrix(const float* keys, int64_t stride, int rows, int columns, void* fields);
// The first n vectors as dense rows of floats: an encoder's values.
void dequantize_vectors(const Vectors& vectors, int n, float* out);

}  // namespace dq
