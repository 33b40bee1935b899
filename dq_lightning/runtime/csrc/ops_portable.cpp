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

constexpr int kFloatRows = 4;

DQ_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return a * b + c; }

// Adding 1.5 * 2^23 leaves no bits for a fraction: the sum's last bits are the integer.
DQ_INLINE Ints nearest(Floats x) { return (Ints)(x + 12582912.0f) - 0x4b400000; }

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

DQ_INLINE TileShape tile_shape(int rows_left, int) { return {rows_left < 4 ? rows_left : 4, 1}; }

// Fields are taken out once for all rows of the tile, a stretch of columns at a time.
static void integer_tile(const Matrix& weight, int block, const Int8Rows& x, int row,
                         TileShape shape, int32_t* sums) {
  constexpr int kStretch = 128;  // a multiple of the columns that share a byte's place
  int16_t fields[kStretch][kBlock];
  const int group = 32 / weight.bits, mask = (1 << weight.bits) - 1;
  const int64_t columns = round_up(weight.columns, group);
  const uint8_t* bytes = (const uint8_t*)weight.fields + block * (columns * kBlock / 8 * weight.bits);
  std::memset(sums, 0, sizeof(int32_t) * shape.rows * kBlock);
  for (int64_t begin = 0; begin < columns; begin += kStretch) {
    const int n = columns - begin < kStretch ? (int)(columns - begin) : kStretch;
    for (int i = 0; i < n; i++) {
      const uint8_t* from = bytes + (begin + i) / group * kBlock * 4 + i % 4;
      const int shift = i % group / 4 * weight.bits;
      for (int o = 0; o < kBlock; o++) fields[i][o] = (int16_t)((from[4 * o] >> shift) & mask);
    }
    for (int m = 0; m < shape.rows; m++) {
      const int8_t* codes = x.codes + (row + m) * x.stride + begin;
      for (int i = 0; i < n; i++)
        for (int o = 0; o < kBlock; o++) sums[m * kBlock + o] += fields[i][o] * (int16_t)codes[i];
    }
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
