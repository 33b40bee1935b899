// The kernels for AVX512 with VNNI: `vpdpbusd` multiplies 64 unsigned fields by 64 signed codes and
// adds groups of four to 16 exact int32 sums.

#include <cfloat>
#include <cmath>
#include <cstdlib>

#include "ops.h"
#include "ops_tables.h"

#if DQ_X86
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")

#define DQ_ISA avx512
#define DQ_NAME "avx512"
#define DQ_LANES 16
#include "ops_vector.h"

namespace dq {
namespace avx512 {

constexpr int kFloatRows = kRowsTogether;

DQ_INLINE Floats multiply_add(Floats a, Floats b, Floats c) {
  return _mm512_fmadd_ps(a, b, c);
}

DQ_INLINE Ints nearest(Floats x) {
  return (Ints)_mm512_cvt_roundps_epi32(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

DQ_INLINE Floats rounded(Floats x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

DQ_INLINE Floats times_power_of_2(Floats x, Floats n) { return _mm512_scalef_ps(x, n); }

DQ_INLINE Ints widen(const int8_t* from) {
  return (Ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from));
}

DQ_INLINE void narrow(Ints x, int8_t* to) {
  _mm_storeu_si128((__m128i*)to, _mm512_cvtepi32_epi8((__m512i)x));
}

DQ_INLINE bool any_larger(Floats a, Floats b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ) != 0;
}

DQ_INLINE Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }
DQ_INLINE Floats smaller(Floats a, Floats b) { return _mm512_min_ps(a, b); }
DQ_INLINE float sum_of(Floats x) { return _mm512_reduce_add_ps(x); }
DQ_INLINE int32_t sum_of(Ints x) { return _mm512_reduce_add_epi32((__m512i)x); }
DQ_INLINE float largest_of(Floats x) { return _mm512_reduce_max_ps(x); }

DQ_INLINE Floats load_part(const float* from, int64_t count, float fill) {
  return _mm512_mask_loadu_ps(all(fill), (__mmask16)((1 << count) - 1), from);
}

DQ_INLINE void store_part(float* to, int64_t count, Floats x) {
  _mm512_mask_storeu_ps(to, (__mmask16)((1 << count) - 1), x);
}

}  // namespace avx512
}  // namespace dq

#include "ops_rows.h"

#include "ops_products.h"

#include "ops_attention.h"

namespace dq {
namespace avx512 {

// Many rows share the work of taking the fields out; few rows share each broadcast of their codes
// among four blocks, and read four streams of the matrix at once.
DQ_INLINE TileShape tile_shape(int rows_left, int blocks_left) {
  const int rows = rows_left >= 12  ? 12
                   : rows_left >= 8 ? 8
                   : rows_left >= 6 ? 6
                   : rows_left == 5 ? 3
                                    : rows_left;
  const int blocks = rows < 8 && blocks_left >= 4 ? 4 : blocks_left >= 2 ? 2 : 1;
  return {rows, blocks};
}

DQ_INLINE __m512i four_codes(const int8_t* codes) {
  int32_t four;
  __builtin_memcpy(&four, codes, 4);
  return _mm512_set1_epi32(four);
}

template <int kBits, int kRows, int kBlocks>
DQ_INLINE void tile(const uint8_t* fields, int64_t block_bytes,
                    const int8_t* codes, int64_t stride, int32_t* out) {
  constexpr int kFields = 8 / kBits;  // in a byte
  const __m512i mask = _mm512_set1_epi8((char)((1 << kBits) - 1));
  __m512i sums[kRows][kBlocks];
#pragma GCC unroll 16
  for (int m = 0; m < kRows; m++)
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; b++) sums[m][b] = _mm512_setzero_si512();
  for (int64_t k = 0; k < block_bytes / 64; k++) {
    __m512i packed[kBlocks];
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; b++) {
      const uint8_t* from = fields + b * block_bytes + k * 64;
      packed[b] = _mm512_loadu_si512(from);
      // Few rows would wait for memory: ask for the next blocks while these are multiplied.
      _mm_prefetch(from + kBlocks * block_bytes, _MM_HINT_T0);
    }
#pragma GCC unroll 8
    for (int j = 0; j < kFields; j++) {
      __m512i field[kBlocks];
#pragma GCC unroll 4
      for (int b = 0; b < kBlocks; b++) {
        const __m512i shifted = j ? _mm512_srli_epi16(packed[b], j * kBits) : packed[b];
        field[b] = kFields == 1 ? packed[b] : _mm512_and_si512(shifted, mask);
      }
#pragma GCC unroll 16
      for (int m = 0; m < kRows; m++) {
        const __m512i four = four_codes(codes + m * stride + (k * kFields + j) * 4);
#pragma GCC unroll 4
        for (int b = 0; b < kBlocks; b++)
          sums[m][b] = _mm512_dpbusd_epi32(sums[m][b], field[b], four);
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < kRows; m++)
#pragma GCC unroll 4
    for (int b = 0; b < kBlocks; b++)
      _mm512_store_si512(out + (m * kBlocks + b) * kBlock, sums[m][b]);
}

template <int kBits>
static void tile_of(const uint8_t* fields, int64_t block_bytes,
                    const int8_t* codes, int64_t stride, TileShape shape, int32_t* out) {
#define DQ_TILE(rows_, blocks_)                                                    \
  if (shape.rows == rows_ && shape.blocks == blocks_)                              \
  return tile<kBits, rows_, blocks_>(fields, block_bytes, codes, stride, out)
  DQ_TILE(12, 2);
  DQ_TILE(12, 1);
  DQ_TILE(8, 2);
  DQ_TILE(8, 1);
  DQ_TILE(6, 4);
  DQ_TILE(6, 2);
  DQ_TILE(6, 1);
  DQ_TILE(4, 4);
  DQ_TILE(4, 2);
  DQ_TILE(4, 1);
  DQ_TILE(3, 4);
  DQ_TILE(3, 2);
  DQ_TILE(3, 1);
  DQ_TILE(2, 4);
  DQ_TILE(2, 2);
  DQ_TILE(2, 1);
  DQ_TILE(1, 4);
  DQ_TILE(1, 2);
  DQ_TILE(1, 1);
#undef DQ_TILE
}

static void integer_tile(int bits, const uint8_t* fields, int64_t block_bytes, const int8_t* codes,
                         int64_t stride, TileShape shape, int32_t* sums) {
  const auto run = bits == 1 ? tile_of<1> : bits == 2 ? tile_of<2> : bits == 4 ? tile_of<4>
                                                                               : tile_of<8>;
  run(fields, block_bytes, codes, stride, shape, sums);
}

DQ_INLINE int32_t dot(const int8_t* a, const int8_t* b, int columns) {
  // b + 128 is unsigned; what that adds to the sum is taken away by a product with 128 again.
  const __m512i offset = _mm512_set1_epi8((char)-128);
  __m512i sum = _mm512_setzero_si512(), added = _mm512_setzero_si512();
  for (int i = 0; i < columns; i += 64) {
    const __m512i codes = _mm512_loadu_si512(a + i);
    sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(_mm512_loadu_si512(b + i), offset), codes);
    added = _mm512_dpbusd_epi32(added, offset, codes);
  }
  return _mm512_reduce_add_epi32(_mm512_sub_epi32(sum, added));
}

}  // namespace avx512

const Ops* avx512_ops() { return &avx512::kOps; }

}  // namespace dq

#pragma GCC pop_options
#else
namespace dq {
const Ops* avx512_ops() { return nullptr; }
}  // namespace dq
#endif
