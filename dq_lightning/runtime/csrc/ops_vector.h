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

DQ_INLINE Floats magnitude(Floats x) { return (Floats)((Ints)x & 0x7fffffff); }
DQ_INLINE Floats to_floats(Ints x) { return __builtin_convertvector(x, Floats); }

// What each instruction set says in its own words.
DQ_INLINE Floats larger(Floats a, Floats b);
DQ_INLINE Floats smaller(Floats a, Floats b);
DQ_INLINE bool any_larger(Floats a, Floats b);
DQ_INLINE Floats multiply_add(Floats a, Floats b, Floats c);  // a b + c, in one rounding if it can
DQ_INLINE Ints nearest(Floats x);                // half to even; |x| < 2^22
DQ_INLINE Floats rounded(Floats x);              // the same as a float
DQ_INLINE Floats times_power_of_2(Floats x, Floats n);  // n whole, from -126 to 127
DQ_INLINE Ints widen(const int8_t* from);        // one int8 a lane
DQ_INLINE void narrow(Ints x, int8_t* to);       // each lane's lowest byte
DQ_INLINE float sum_of(Floats x);
DQ_INLINE int32_t sum_of(Ints x);
DQ_INLINE float largest_of(Floats x);
// The first `count` lanes, fewer than all; the others are `fill`.
DQ_INLINE Floats load_part(const float* from, int64_t count, float fill);
DQ_INLINE void store_part(float* to, int64_t count, Floats x);

DQ_INLINE Floats load(const float* from, int64_t count, float fill) {
  return count >= kLanes ? load(from) : load_part(from, count, fill);
}

DQ_INLINE void store(float* to, int64_t count, Floats x) {
  if (count >= kLanes) return store(to, x);
  store_part(to, count, x);
}

}  // namespace DQ_ISA
}  // namespace dq
