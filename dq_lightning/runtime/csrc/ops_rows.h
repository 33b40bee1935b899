// What is done row by row around the products; see ops.h for each function and ops_vector.h for
// how this file is compiled.

namespace dq {
namespace DQ_ISA {

// exp(x) = 2^n exp(f), |f| <= ln 2 / 2, exp(f) by its Taylor series (remainder 6e-9 of it), whose
// terms are paired so that few of them wait for each other. Below -87.3 it stays at the smallest
// normal number, above 88.3 at exp(88.3).
DQ_INLINE Floats exponential(Floats x) {
  x = smaller(larger(x, all(-87.3f)), all(88.3f));
  const Floats n = rounded(x * 1.44269504089f);
  // ln 2 in two parts, the first short enough for exact products with n.
  Floats f = multiply_add(n, all(-0.693359375f), x);
  f = multiply_add(n, all(2.12194440055e-4f), f);
  const Floats f2 = f * f;
  const Floats terms01 = 1.0f + f;
  const Floats terms23 = multiply_add(f, all(1.0f / 6), all(1.0f / 2));
  const Floats terms45 = multiply_add(f, all(1.0f / 120), all(1.0f / 24));
  const Floats terms67 = multiply_add(f, all(1.0f / 5040), all(1.0f / 720));
  const Floats lower = multiply_add(terms23, f2, terms01);
  const Floats upper = multiply_add(terms67, f2, terms45);
  return times_power_of_2(multiply_add(upper, f2 * f2, lower), n);
}

DQ_INLINE float largest_magnitude(const float* x, int n, float factor) {
  Floats largest = all(0.0f);
  for (int i = 0; i < n; i += kLanes)
    largest = larger(magnitude(load(x + i, n - i, 0.0f) * factor), largest);
  return largest_of(largest);
}

DQ_INLINE float clamped(float x, float low, float high) {
  return x < low ? low : x > high ? high : x;
}

static void quantize_rows(const float* x, int64_t x_stride, float factor, RowQuantizer quantizer,
                          const Int8Rows& out) {
  const float largest_code = (float)quantizer.largest_code;
  for (int row = 0; row < out.rows; row++) {
    const float* values = x + row * x_stride;
    int8_t* codes = out.codes + row * out.stride;
    float largest = largest_magnitude(values, out.columns, factor);
    // As quantization/symmetric.py: the floor keeps the scale of a zero row a normal number.
    largest = clamped(largest, largest_code * FLT_MIN, quantizer.clip);
    const float inverse_scale = 1.0f / largest * largest_code;  // torch's order of n / tensor
    Ints sum = {};
    for (int i = 0; i < out.columns; i += kLanes) {
      const Floats scaled = load(values + i, out.columns - i, 0.0f) * factor * inverse_scale;
      // Clamped before it is rounded, which gives the same: the bounds are integers.
      const Ints code = nearest(smaller(larger(scaled, all(-largest_code)), all(largest_code)));
      sum += code;
      narrow(code, codes + i);  // up to the stride, which is a multiple of the lanes
    }
    for (int64_t i = round_up(out.columns, kLanes); i < out.stride; i++) codes[i] = 0;
    out.scale[row] = 1.0f / inverse_scale;
    out.sum[row] = sum_of(sum);
  }
}

// Adds the bias and gives the largest score.
DQ_INLINE float add_bias(float* scores, const float* bias, int n) {
  Floats largest = all(-INFINITY);
  for (int i = 0; i < n; i += kLanes) {
    Floats score = load(scores + i, n - i, -INFINITY);
    if (bias) store(scores + i, n - i, score += load(bias + i, n - i, 0.0f));
    largest = larger(score, largest);
  }
  return largest_of(largest);
}

// Of probabilities p = weight / sum, whose largest is 1 / sum: codes = p r, r = largest code over
// the clip. Gives the scale.
DQ_INLINE float quantize_clipped(float* weights, int n, float sum, RowQuantizer quantizer) {
  const float largest_code = (float)quantizer.largest_code;
  const float codes_a_weight = largest_code / (quantizer.clip * sum);
  for (int i = 0; i < n; i += kLanes) {
    const Floats code = load(weights + i, n - i, 0.0f) * codes_a_weight;
    store(weights + i, n - i, rounded(smaller(code, all(largest_code))));
  }
  return quantizer.clip / largest_code;
}

static void softmax(float* scores, int64_t stride, int rows, int n, const float* bias,
                    int64_t bias_stride, RowQuantizer quantizer, float* factor) {
  // No probability is above 1; without clipping the largest weight, 1, gets the largest code.
  const bool quantizes = quantizer.largest_code > 0, may_clip = quantizer.clip < 1.0f;
  const bool quantizes_at_once = quantizes && !may_clip;
  const float largest_code = (float)quantizer.largest_code;
  for (int row = 0; row < rows; row++) {
    float* weights = scores + row * stride;
    const float largest = add_bias(weights, bias ? bias + row * bias_stride : nullptr, n);
    Floats total = all(0.0f);
    for (int i = 0; i < n; i += kLanes) {
      const Floats weight = exponential(load(weights + i, n - i, -INFINITY) - largest);
      total += weight;  // lanes past the end hold 1e-38
      const Floats code = rounded(weight * largest_code);
      store(weights + i, n - i, quantizes_at_once ? code : weight);
    }
    const float sum = sum_of(total);
    factor[row] = 1.0f / sum;
    if (quantizes_at_once) factor[row] /= largest_code;
    if (quantizes && may_clip) {
      const float clip = quantizer.clip * sum < 1.0f ? quantizer.clip : 1.0f / sum;
      factor[row] = quantize_clipped(weights, n, sum, {quantizer.largest_code, clip});
    }
  }
}

static void norm(const float* x, const float* residual, int rows, int columns,
                 const float* weight, const float* bias, float epsilon, bool centred, float* sum,
                 float* out) {
  for (int64_t begin = 0; begin < (int64_t)rows * columns; begin += columns) {
    float* kept = (sum ? sum : out) + begin;
    Floats total = all(0.0f);
    for (int i = 0; i < columns; i += kLanes) {
      Floats value = load(x + begin + i, columns - i, 0.0f);
      if (residual) value += load(residual + begin + i, columns - i, 0.0f);
      total += value;
      store(kept + i, columns - i, value);
    }
    const float mean = centred ? sum_of(total) / (float)columns : 0.0f;
    Floats squares = all(0.0f);
    for (int i = 0; i < columns; i += kLanes) {
      const Floats distance = load(kept + i, columns - i, mean) - mean;
      squares = multiply_add(distance, distance, squares);
    }
    const float inverse = 1.0f / std::sqrt(sum_of(squares) / (float)columns + epsilon);
    for (int i = 0; i < columns; i += kLanes) {
      Floats value = (load(kept + i, columns - i, 0.0f) - mean) * inverse;
      value *= load(weight + i, columns - i, 0.0f);
      if (bias) value += load(bias + i, columns - i, 0.0f);
      store(out + begin + i, columns - i, value);
    }
  }
}

// x Phi(x) with erfc(z) = t poly(t) exp(-z^2), t = 1 / (1 + 0.3275911 z), to 1.5e-7 (Abramowitz
// and Stegun 1964, formula 7.1.26).
DQ_INLINE Floats gelu(Floats x) {
  const Floats z = magnitude(x) * 0.70710678f;
  const Floats t = 1.0f / multiply_add(all(0.3275911f), z, all(1.0f));
  Floats series = all(1.061405429f);
  series = multiply_add(series, t, all(-1.453152027f));
  series = multiply_add(series, t, all(1.421413741f));
  series = multiply_add(series, t, all(-0.284496736f));
  series = multiply_add(series, t, all(0.254829592f));
  const Floats half_tail = series * t * exponential(-z * z) * 0.5f;
  return x * (x < 0.0f ? half_tail : 1.0f - half_tail);
}

DQ_INLINE Floats silu(Floats x) { return x / (1.0f + exponential(-x)); }

// 0.5 x (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
DQ_INLINE Floats gelu_new(Floats x) {
  const Floats u = 0.7978845608f * multiply_add(x * x * x, all(0.044715f), x);
  return x / (1.0f + exponential(-2.0f * u));
}

template <typename Function>
DQ_INLINE void apply(float* x, const float* gate, int64_t n, Function f) {
  for (int64_t i = 0; i < n; i += kLanes) {
    Floats value = f(load(x + i, n - i, 0.0f));
    if (gate) value *= load(gate + i, n - i, 0.0f);
    store(x + i, n - i, value);
  }
}

static void activate(Activation f, float* x, const float* gate, int64_t n) {
  if (f == kRelu) apply(x, gate, n, [](Floats v) { return larger(v, all(0.0f)); });
  if (f == kGelu) apply(x, gate, n, [](Floats v) { return gelu(v); });
  if (f == kGeluNew) apply(x, gate, n, [](Floats v) { return gelu_new(v); });
  if (f == kSilu) apply(x, gate, n, [](Floats v) { return silu(v); });
}

static float log_sum_exp(const float* x, int n) {
  Floats largest = all(-INFINITY), total = all(0.0f);
  for (int i = 0; i < n; i += kLanes) largest = larger(load(x + i, n - i, -INFINITY), largest);
  const float top = largest_of(largest);
  for (int i = 0; i < n; i += kLanes) total += exponential(load(x + i, n - i, -INFINITY) - top);
  return top + std::log(sum_of(total));
}

static void top_k(const float* x, int n, int k, float* values, int32_t* indices) {
  int found = 0;
  for (int i = 0; i < n; i += kLanes) {
    // Nearly every vector holds nothing above the k-th value so far.
    if (found == k && !any_larger(load(x + i, n - i, -INFINITY), all(values[k - 1]))) continue;
    for (int j = i; j < n && j < i + kLanes; j++) {
      if (found == k && !(x[j] > values[k - 1])) continue;
      int place = found < k ? found++ : k - 1;
      for (; place > 0 && x[j] > values[place - 1]; place--) {
        values[place] = values[place - 1];
        indices[place] = indices[place - 1];
      }
      values[place] = x[j];
      indices[place] = j;
    }
  }
}

}  // namespace DQ_ISA
}  // namespace dq
