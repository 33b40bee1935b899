// The kernels for AVX2 without VNNI: `vpmaddubsw` multiplies 32 unsigned fields by 32 signed codes
// and adds pairs, in 16 bits that saturate. So fields have at most 4 bits here (8-bit fields are
// two of 4), and the sums move to 32 bits before they can reach 2^15.

#include <cfloat>
#include <cmath>
#include <cstdlib>

#include "ops.h"
#include "ops_tables.h"

#if DQ_X86
#include <immintrin.h>
#pragma GCC push_options
#pragma GCC target("avx2,fma")

#define DQ_ISA avx2
#define DQ_NAME "avx2"
#define DQ_LANES 8
#include "ops_vector.h"

#include "ops_avx2_vector.h"

#include "ops_rows.h"

#include "ops_products.h"

#include "ops_attention.h"

namespace dq {
namespace avx2 {

DQ_INLINE TileShape tile_shape(int rows_left, int) {
  return {rows_left >= 4 ? 4 : rows_left >= 2 ? 2 : 1, 1};
}

DQ_INLINE __m256i four_codes(const int8_t* codes) {
  int32_t four;
  __builtin_memcpy(&four, codes, 4);
  return _mm256_set1_epi32(four);
}

// sums += the pairs of 16-bit sums, each times `weight`.
DQ_INLINE void move_sums(__m256i& pairs, int weight, int32_t* sums) {
  const __m256i wide = _mm256_madd_epi16(pairs, _mm256_set1_epi16((short)weight));
  __m256i* out = (__m256i*)sums;
  _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_loadu_si256(out), wide));
  pairs = _mm256_setzero_si256();
}

// kBits up to 4: all fields of a byte meet codes of their own. 8 bits: both halves of a byte meet
// the same code, and are summed apart (kPlanes) because the upper one counts 16 times.
template <int kBits, int kRows>
static void tile(const uint8_t* fields, int64_t vectors, const int8_t* codes, int64_t stride,
                 int32_t* sums) {
  constexpr int kWidth = kBits == 8 ? 4 : kBits, kFields = 8 / kWidth;
  constexpr int kPlanes = kBits == 8 ? 2 : 1, kFieldsOfPlane = kFields / kPlanes;
  constexpr int kLargestPair = 2 * 127 * ((1 << kWidth) - 1);
  constexpr int kVectorsBeforeMove = 32767 / (kLargestPair * kFieldsOfPlane);
  const __m256i mask = _mm256_set1_epi8((char)((1 << kWidth) - 1));
  __m256i pairs[kRows][kPlanes][2] = {};
  for (int64_t begin = 0; begin < vectors; begin += kVectorsBeforeMove) {
    const int64_t end = begin + kVectorsBeforeMove < vectors ? begin + kVectorsBeforeMove : vectors;
    for (int64_t k = begin; k < end; k++) {
#pragma GCC unroll 8
      for (int j = 0; j < kFields; j++) {
        const int plane = j / kFieldsOfPlane;
        const int8_t* code = codes + (k * kFieldsOfPlane + j % kFieldsOfPlane) * 4;
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
          const __m256i packed = _mm256_loadu_si256((const __m256i*)(fields + k * 64) + half);
          const __m256i field = _mm256_and_si256(_mm256_srli_epi16(packed, j * kWidth), mask);
#pragma GCC unroll 4
          for (int m = 0; m < kRows; m++) {
            const __m256i product = _mm256_maddubs_epi16(field, four_codes(code + m * stride));
            pairs[m][plane][half] = _mm256_add_epi16(pairs[m][plane][half], product);
          }
        }
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < kRows; m++)
#pragma GCC unroll 4
      for (int i = 0; i < 2 * kPlanes; i++)
        move_sums(pairs[m][i / 2][i % 2], i / 2 ? 16 : 1, sums + m * kBlock + i % 2 * 8);
  }
}

template <int kBits>
static void tile_of(const uint8_t* fields, int64_t vectors, const int8_t* codes, int64_t stride,
                    int rows, int32_t* sums) {
  constexpr int kMostRows = kBits == 8 ? 2 : 4;  // what the 16 registers hold
  for (; rows >= kMostRows; rows -= kMostRows) {
    tile<kBits, kMostRows>(fields, vectors, codes, stride, sums);
    codes += kMostRows * stride;
    sums += kMostRows * kBlock;
  }
  if (rows == 2) tile<kBits, 2>(fields, vectors, codes, stride, sums);
  if (rows == 1) tile<kBits, 1>(fields, vectors, codes, stride, sums);
}

static void integer_tile(int bits, const uint8_t* fields, int64_t block_bytes, const int8_t* codes,
                         int64_t stride, TileShape shape, int32_t* sums) {
  for (int i = 0; i < shape.rows * kBlock; i++) sums[i] = 0;
  const auto run = bits == 1 ? tile_of<1> : bits == 2 ? tile_of<2> : bits == 4 ? tile_of<4>
                                                                               : tile_of<8>;
  run(fields, block_bytes / 64, codes, stride, shape.rows, sums);
}

DQ_INLINE int32_t dot(const int8_t* a, const int8_t* b, int columns) {
  __m256i sum = _mm256_setzero_si256();
  for (int i = 0; i < columns; i += 16) {
    const __m256i one = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(a + i)));
    const __m256i other = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(b + i)));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(one, other));
  }
  return sum_of((Ints)sum);
}

}  // namespace avx2

const Ops* avx2_ops() { return &avx2::kOps; }

}  // namespace dq

#pragma GCC pop_options
#else
namespace dq {
const Ops* avx2_ops() { return nullptr; }
}  // namespace dq
#endif
