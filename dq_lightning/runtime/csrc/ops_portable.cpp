// The kernels in plain C++, for any machine; the compiler turns its vectors into what there is.

#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "ops.h"
#include "ops_tables.h"

#define DQ_ISA portable
#define DQ_NAME "portable"
#define DQ_LANES 4
#include "ops_vector.h"

namespace dq {
namespace portable {

constexpr int kFloatRows = 2;

DQ_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }

// Adding 1.5 * 2^23 leaves no bits for a fraction: the sum's last bits are the integer.
DQ_INLINE Ints nearest(Floats x) { return (Ints)(x + 12582912.0f) - 0x4b400000; }

DQ_INLINE Floats rounded(Floats x) { return to_floats(nearest(x)); }

DQ_INLINE Floats times_power_of_2(Floats x, Floats n) {
  return x * (Floats)((nearest(n) + 127) << 23);
}

DQ_INLINE Ints widen(const int8_t* from) { return Ints{from[0], from[1], from[2], from[3]}; }

DQ_INLINE void narrow(Ints x, int8_t* to) {
  for (int i = 0; i < kLanes; i++) to[i] = (int8_t)x[i];
}

DQ_INLINE Floats larger(Floats a, Floats b) { return a > b ? a : b; }
DQ_INLINE Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

DQ_INLINE bool any_larger(Floats a, Floats b) {
  const Ints larger = a > b;
  return (larger[0] | larger[1] | larger[2] | larger[3]) != 0;
}

DQ_INLINE float sum_of(Floats x) { return (x[0] + x[1]) + (x[2] + x[3]); }
DQ_INLINE int32_t sum_of(Ints x) { return (x[0] + x[1]) + (x[2] + x[3]); }

DQ_INLINE float largest_of(Floats x) {
  const float low = x[0] > x[1] ? x[0] : x[1], high = x[2] > x[3] ? x[2] : x[3];
  return low > high ? low : high;
}

DQ_INLINE Floats load_part(const float* from, int64_t count, float fill) {
  Floats x = all(fill);
  for (int64_t i = 0; i < count; i++) x[i] = from[i];
  return x;
}

DQ_INLINE void store_part(float* to, int64_t count, Floats x) {
  for (int64_t i = 0; i < count; i++) to[i] = x[i];
}

}  // namespace portable
}  // namespace dq

#include "ops_rows.h"

#include "ops_products.h"

#include "ops_attention.h"

namespace dq {
namespace portable {

DQ_INLINE TileShape tile_shape(int rows_left, int) {
  return {least(rows_left, kRowsTogether), 1};
}

constexpr int kStretch = 128;  // columns; any number of bits fills whole vectors with them
static_assert(kStretch * 255 * 127 < 1 << 24, "floats must hold every integer sum");

// Vectors of 64 packed bytes as floats, values[column][row].
DQ_INLINE void take_fields(int bits, const uint8_t* fields, int vectors, float (*values)[kBlock]) {
  const int32_t mask = (1 << bits) - 1;
  for (int k = 0; k < vectors; k++)
    for (int v = 0; v < kVectors; v++) {
      Ints packed;
      std::memcpy(&packed, fields + (k * kVectors + v) * sizeof(Ints), sizeof(Ints));
      for (int j = 0; j < 8 / bits; j++)
        for (int i = 0; i < 4; i++) {
          const Ints field = (packed >> (8 * i + j * bits)) & mask;
          store(values[(k * (8 / bits) + j) * 4 + i] + v * kLanes, to_floats(field));
        }
    }
}

template <int kRows>
DQ_INLINE void add_products(const float* codes, const float (*values)[kBlock], int n,
                            int32_t* sums) {
  Floats products[kRows][kVectors];
  float_tile(codes, kStretch, n, [=](int i, int v) { return load(values[i] + v * kLanes); },
             products);
  for (int m = 0; m < kRows; m++)
    for (int v = 0; v < kVectors; v++)
      *(Ints*)(sums + m * kBlock + v * kLanes) += __builtin_convertvector(products[m][v], Ints);
}

// Plain machines multiply floats faster than small integers; short sums of them are exact.
static void integer_tile(int bits, const uint8_t* fields, int64_t block_bytes, const int8_t* codes,
                         int64_t stride, TileShape shape, int32_t* sums) {
  float values[kStretch][kBlock], own_codes[kRowsTogether][kStretch];
  const int group = 32 / bits;
  const int64_t columns = block_bytes / (kBlock * 4) * group;
  std::memset(sums, 0, sizeof(int32_t) * shape.rows * kBlock);
  for (int64_t begin = 0; begin < columns; begin += kStretch) {
    const int n = columns - begin < kStretch ? (int)(columns - begin) : kStretch;
    take_fields(bits, fields + begin / group * kBlock * 4, n / group, values);
    for (int m = 0; m < shape.rows; m++)
      for (int i = 0; i < n; i++) own_codes[m][i] = (float)codes[m * stride + begin + i];
    int m = 0;
    for (; m + 2 <= shape.rows; m += 2) add_products<2>(own_codes[m], values, n, sums + m * kBlock);
    if (m < shape.rows) add_products<1>(own_codes[m], values, n, sums + m * kBlock);
  }
}

DQ_INLINE int32_t dot(const int8_t* a, const int8_t* b, int columns) {
  int32_t sum = 0;
  for (int i = 0; i < columns; i++) sum += a[i] * b[i];
  return sum;
}

}  // namespace portable

const Ops* portable_ops() { return &portable::kOps; }

}  // namespace dq
