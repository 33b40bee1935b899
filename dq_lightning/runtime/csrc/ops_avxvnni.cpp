// The kernels for AVX-VNNI: `vpdpbusd` as in AVX512, in registers of half the size. For processors
// with VNNI but without AVX512.

#include <cfloat>
#include <cmath>
#include <cstdlib>

#include "ops.h"
#include "ops_tables.h"

#if DQ_AVXVNNI
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma,avxvnni")

#define DQ_ISA avxvnni
#define DQ_NAME "avxvnni"
#define DQ_LANES 8
#include "ops_vector.h"

#include "ops_avx2_vector.h"

#include "ops_rows.h"

#include "ops_products.h"

#include "ops_attention.h"

namespace dq {
namespace avxvnni {

// Sums of at most 12 registers, of at least 4: each waits for its own last product.
DQ_INLINE TileShape tile_shape(int rows_left, int blocks_left) {
  const int rows = rows_left >= 6 ? 6 : rows_left == 5 ? 3 : rows_left;
  return {rows, rows <= 3 && blocks_left >= 2 ? 2 : 1};
}

DQ_INLINE __m256i four_codes(const int8_t* codes) {
  int32_t four;
  __builtin_memcpy(&four, codes, 4);
  return _mm256_set1_epi32(four);
}

template <int kBits, int kRows, int kBlocks>
static void tile(const uint8_t* fields, int64_t block_bytes, const int8_t* codes, int64_t stride,
                 int32_t* out) {
  constexpr int kFields = 8 / kBits, kHalves = 2 * kBlocks;  // in a byte; of a block's 16 rows
  const __m256i mask = _mm256_set1_epi8((char)((1 << kBits) - 1));
  __m256i sums[kRows][kHalves] = {};
  for (int64_t k = 0; k < block_bytes; k += 64) {
#pragma GCC unroll 8
    for (int j = 0; j < kFields; j++) {
      __m256i field[kHalves];
#pragma GCC unroll 4
      for (int h = 0; h < kHalves; h++) {
        const uint8_t* from = fields + h / 2 * block_bytes + k + h % 2 * 32;
        field[h] = _mm256_loadu_si256((const __m256i*)from);
        if (j > 0) field[h] = _mm256_srli_epi16(field[h], j * kBits);
        if (kFields > 1) field[h] = _mm256_and_si256(field[h], mask);
      }
#pragma GCC unroll 6
      for (int m = 0; m < kRows; m++) {
        const __m256i four = four_codes(codes + m * stride + k / 16 * kFields + 4 * j);
#pragma GCC unroll 4
        for (int h = 0; h < kHalves; h++)
          sums[m][h] = _mm256_dpbusd_avx_epi32(sums[m][h], field[h], four);
      }
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < kRows; m++)
#pragma GCC unroll 4
    for (int h = 0; h < kHalves; h++)
      _mm256_store_si256((__m256i*)out + m * kHalves + h, sums[m][h]);
}

template <int kBits>
static void tile_of(const uint8_t* fields, int64_t block_bytes, const int8_t* codes,
                    int64_t stride, TileShape shape, int32_t* out) {
#define DQ_TILE(rows_, blocks_)                       \
  if (shape.rows == rows_ && shape.blocks == blocks_) \
  return tile<kBits, rows_, blocks_>(fields, block_bytes, codes, stride, out)
  DQ_TILE(6, 1);
  DQ_TILE(4, 1);
  DQ_TILE(3, 2);
  DQ_TILE(3, 1);
  DQ_TILE(2, 2);
  DQ_TILE(2, 1);
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
  const __m256i offset = _mm256_set1_epi8((char)-128);
  __m256i sum = _mm256_setzero_si256(), added = _mm256_setzero_si256();
  for (int i = 0; i < columns; i += 32) {
    const __m256i codes = _mm256_loadu_si256((const __m256i*)(a + i));
    const __m256i keys = _mm256_loadu_si256((const __m256i*)(b + i));
    sum = _mm256_dpbusd_avx_epi32(sum, _mm256_xor_si256(keys, offset), codes);
    added = _mm256_dpbusd_avx_epi32(added, offset, codes);
  }
  return sum_of((Ints)_mm256_sub_epi32(sum, added));
}

}  // namespace avxvnni

const Ops* avxvnni_ops() { return &avxvnni::kOps; }

}  // namespace dq

#pragma GCC pop_options
#else
namespace dq {
const Ops* avxvnni_ops() { return nullptr; }
}  // namespace dq
#endif
