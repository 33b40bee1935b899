// Attention over vectors: the scores of a decoder's cache and the sum of values; see ops.h for each
// function and ops_vector.h for how this file is compiled.

namespace dq {
namespace DQ_ISA {

// sum of a * b over the columns, which are padded to kCodesPad: a's padding holds zeros.
DQ_INLINE int32_t dot(const int8_t* a, const int8_t* b, int columns);

DQ_INLINE int64_t place_of(const Vectors& vectors, int i) {
  return vectors.index ? vectors.index[i] : i;
}

DQ_INLINE float float_dot(const float* a, const float* b, int columns) {
  Floats sum = all(0.0f);
  for (int i = 0; i < columns; i += kLanes)
    sum = multiply_add(load(a + i, columns - i, 0.0f), load(b + i, columns - i, 0.0f), sum);
  return sum_of(sum);
}

static void dots(const Vectors& query, const Vectors& keys, int n, float* scores) {
  const int64_t first = place_of(query, 0);
  for (int i = 0; i < n; i++) {
    const int64_t place = place_of(keys, i);
    if (!keys.codes) {
      scores[i] = float_dot(query.values + first * query.stride,
                            keys.values + place * keys.stride, keys.columns);
      continue;
    }
    const int32_t product = dot(query.codes + first * query.stride,
                                keys.codes + place * keys.stride, keys.columns);
    scores[i] = (float)product * (query.scale[first * query.scale_stride] *
                                  keys.scale[place * keys.scale_stride]);
  }
}

// kRows rows of `out`, from `column`, kColumns vectors wide.
template <int kRows, int kColumns, typename LoadValue>
DQ_INLINE void sum_tile(const float* weights, int64_t stride, int n, const float* factor,
                        LoadValue load_value, int column, float* out, int64_t out_stride) {
  Floats sums[kRows][kColumns];
  float_tile(weights, stride, n,
             [=](int i, int v) { return load_value(i, column + v * kLanes); }, sums);
  for (int m = 0; m < kRows; m++)
    for (int v = 0; v < kColumns; v++)
      store(out + m * out_stride + column + v * kLanes, sums[m][v] * factor[m]);
}

// kRows rows of `out`: as wide tiles as there are columns for, then what is left one by one.
template <int kRows, int kColumns, typename LoadValue, typename LoadOne>
DQ_INLINE void sum_rows(const float* weights, int64_t stride, int n, const float* factor,
                        int columns, LoadValue load_value, LoadOne load_one, float* out,
                        int64_t out_stride) {
  int column = 0;
  for (; column + kColumns * kLanes <= columns; column += kColumns * kLanes)
    sum_tile<kRows, kColumns>(weights, stride, n, factor, load_value, column, out, out_stride);
  for (; column + kLanes <= columns; column += kLanes)
    sum_tile<kRows, 1>(weights, stride, n, factor, load_value, column, out, out_stride);
  for (; column < columns; column++)
    for (int m = 0; m < kRows; m++) {
      float sum = 0.0f;
      for (int i = 0; i < n; i++) sum += weights[m * stride + i] * load_one(i, column);
      out[m * out_stride + column] = sum * factor[m];
    }
}

template <typename LoadValue, typename LoadOne>
DQ_INLINE void sum_values(const float* weights, int64_t stride, int rows, int n,
                          const float* factor, int columns, LoadValue load_value,
                          LoadOne load_one, float* out, int64_t out_stride) {
  int row = 0;
  for (; row + kFloatRows <= rows; row += kFloatRows)
    sum_rows<kFloatRows, 2>(weights + row * stride, stride, n, factor + row, columns, load_value,
                            load_one, out + row * out_stride, out_stride);
  for (; row + 4 <= rows; row += 4)
    sum_rows<4, 2>(weights + row * stride, stride, n, factor + row, columns, load_value, load_one,
                   out + row * out_stride, out_stride);
  for (; row < rows; row++)
    sum_rows<1, 4>(weights + row * stride, stride, n, factor + row, columns, load_value, load_one,
                   out + row * out_stride, out_stride);
}

static void weighted_sum(float* weights, int64_t stride, int rows, int n, const float* factor,
                         const Vectors& values, float* out, int64_t out_stride) {
  const Vectors own = values;
  if (!values.codes) {
    sum_values(
        weights, stride, rows, n, factor, own.columns,
        [=](int i, int column) {
          return load(own.values + place_of(own, i) * own.stride + column);
        },
        [=](int i, int column) { return own.values[place_of(own, i) * own.stride + column]; },
        out, out_stride);
    return;
  }
  for (int m = 0; m < rows; m++)
    for (int i = 0; i < n; i++)
      weights[m * stride + i] *= own.scale[place_of(own, i) * own.scale_stride];
  sum_values(
      weights, stride, rows, n, factor, own.columns,
      [=](int i, int column) {
        return to_floats(widen(own.codes + place_of(own, i) * own.stride + column));
      },
      [=](int i, int column) { return (float)own.codes[place_of(own, i) * own.stride + column]; },
      out, out_stride);
}

// The table of this instruction set.
static const Ops kOps = {
    DQ_NAME, quantize_rows, accumulate, linear, float_linear, dots,  softmax,
    weighted_sum, norm,     activate,   log_sum_exp,          top_k,
};

}  // namespace DQ_ISA
}  // namespace dq
