// Vectors of floats and what is computed lane by lane. Each instruction set's file includes this,
// ops_rows.h and ops_products.h after its target pragma, with DQ_ISA (its namespace) and DQ_LANES
// defined, so that each gets its own compiled copy: hence no include guards, and no inline function
// or template of the standard library in here (a linker keeps one copy for all instruction sets).

namespace dq {
namespace DQ_ISA {

constexpr int kLanes = DQ_LANES;
typedef float Floats __attribute__((vector_size(4 * DQ_LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * DQ_LANES)));
typedef float FloatsInMemory __attribute__((vector_size(4 * DQ_LANES), aligned(4), may_alias));

#define DQ_INLINE static inline __attribute__((always_inline))

DQ_INLINE Floats all(float x) { return Floats{} + x; }
DQ_INLINE Floats load(const float* from) { return *(const FloatsInMemory*)from; }
DQ_INLINE void store(float* to, Floats x) { *(FloatsInMemory*)to = x; }

// The first `count` numbers (more than the lanes: all), `fill` in the other lanes.
DQ_INLINE Floats load(const float* from, int64_t count, float fill) {
  if (count >= kLanes) return load(from);
  Floats x = all(fill);
  for (int64_t i = 0; i < count; i++) x[i] = from[i];
  return x;
}

DQ_INLINE void store(float* to, int64_t count, Floats x) {
  if (count >= kLanes) return store(to, x);
  for (int64_t i = 0; i < count; i++) to[i] = x[i];
}

DQ_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
DQ_INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
DQ_INLINE Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
DQ_INLINE Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

template <typename Vector>
DQ_INLINE auto sum_of(Vector x) {
  auto total = x[0];
  for (int i = 1; i < kLanes; i++) total += x[i];
  return total;
}

DQ_INLINE float largest_of(Floats x) {
  float largest = x[0];
  for (int i = 1; i < kLanes; i++) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// a * b + c, in one rounding where the machine can.
DQ_INLINE Floats multiply_add(Floats a, Floats b, Floats c);
// The nearest integer, half to even; |x| < 2^22.
DQ_INLINE Ints nearest(Floats x);
// One int8 a lane.
DQ_INLINE Ints widen(const int8_t* from);
// Its lowest byte of each lane.
DQ_INLINE void narrow(Ints x, int8_t* to);
DQ_INLINE bool any_larger(Floats a, Floats b);

// exp(x) = 2^n exp(f), |f| <= ln 2 / 2, exp(f) by its Taylor series (remainder 6e-9 of it).
// Below -87.3 it stays at the smallest normal number, above 88.3 at exp(88.3).
DQ_INLINE Floats exponential(Floats x) {
  x = smaller(larger(x, all(-87.3f)), all(88.3f));
  const Ints n = nearest(x * 1.44269504089f);
  // ln 2 in two parts, the first short enough for exact products with n.
  Floats f = multiply_add(to_floats(n), all(-0.693359375f), x);
  f = multiply_add(to_floats(n), all(2.12194440055e-4f), f);
  Floats series = all(1.0f / 5040);
  series = multiply_add(series, f, all(1.0f / 720));
  series = multiply_add(series, f, all(1.0f / 120));
  series = multiply_add(series, f, all(1.0f / 24));
  series = multiply_add(series, f, all(1.0f / 6));
  series = multiply_add(series, f, all(0.5f));
  series = multiply_add(series, f, all(1.0f));
  series = multiply_add(series, f, all(1.0f));
  return series * (Floats)((n + 127) << 23);
}

}  // namespace DQ_ISA
}  // namespace dq
