// Vectors of 8 lanes in AVX2 with FMA, for the instruction sets that have those; see ops_vector.h
// for what each function does and how this file is compiled.

namespace dq {
namespace DQ_ISA {

constexpr int kFloatRows = 6;

DQ_INLINE Floats multiply_add(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }

DQ_INLINE Ints nearest(Floats x) {
  return (Ints)_mm256_cvtps_epi32(_mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT));
}

DQ_INLINE Floats rounded(Floats x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

DQ_INLINE Floats times_power_of_2(Floats x, Floats n) {
  return x * (Floats)(((Ints)_mm256_cvtps_epi32(n) + 127) << 23);
}

DQ_INLINE Ints widen(const int8_t* from) {
  return (Ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from));
}

DQ_INLINE void narrow(Ints x, int8_t* to) {
  const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)x),
                                        _mm256_extracti128_si256((__m256i)x, 1));
  _mm_storel_epi64((__m128i*)to, _mm_packs_epi16(words, words));
}

DQ_INLINE Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }
DQ_INLINE Floats smaller(Floats a, Floats b) { return _mm256_min_ps(a, b); }

DQ_INLINE bool any_larger(Floats a, Floats b) {
  return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ)) != 0;
}

DQ_INLINE float sum_of(Floats x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

DQ_INLINE int32_t sum_of(Ints x) {
  __m128i sum = _mm_add_epi32(_mm256_castsi256_si128((__m256i)x),
                              _mm256_extracti128_si256((__m256i)x, 1));
  sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));  // the halves' places exchanged
  return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));  // the pairs'
}

DQ_INLINE float largest_of(Floats x) {
  __m128 top = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  top = _mm_max_ps(top, _mm_movehl_ps(top, top));
  return _mm_cvtss_f32(_mm_max_ss(top, _mm_movehdup_ps(top)));
}

DQ_INLINE __m256i first_lanes(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

DQ_INLINE Floats load_part(const float* from, int64_t count, float fill) {
  const __m256i lanes = first_lanes(count);
  return _mm256_blendv_ps(all(fill), _mm256_maskload_ps(from, lanes), (__m256)lanes);
}

DQ_INLINE void store_part(float* to, int64_t count, Floats x) {
  _mm256_maskstore_ps(to, first_lanes(count), x);
}

}  // namespace DQ_ISA
}  // namespace dq
