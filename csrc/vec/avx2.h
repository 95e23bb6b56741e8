// 256-bit lanes: 8 float32 or 4 float64.
// Instruction set: AVX2. Flags: -mavx2 (no -mfma: nothing here may contract).
// Rounding: VADDPS, VMULPS, VDIVPS and VSQRTPS are correctly rounded, VMINPS and VMAXPS return the second operand on a
// NaN: the scalar lane, element by element. Partial loads are VMASKMOV, which neither reads nor faults past n.
#pragma once
#include <immintrin.h>

#include "wide256.h"

namespace fusedstep {
namespace {

template <class T>
struct Lane;

FS_INLINE __m256i first_n_of_8(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
FS_INLINE __m256i first_n_of_4(int n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

template <>
struct Lane<float> {
  using value_type = float;
  static constexpr int size = 8;
  struct Mask {
    __m256 r;
  };
  __m256 r;

  FS_INLINE Lane(float x) : r(_mm256_set1_ps(x)) {}
  FS_INLINE Lane(__m256 x) : r(x) {}
  FS_INLINE static Lane load(const float* at) { return _mm256_loadu_ps(at); }
  FS_INLINE void store(float* at) const { _mm256_storeu_ps(at, r); }
  FS_INLINE static Lane load_partial(const float* at, int n) { return _mm256_maskload_ps(at, first_n_of_8(n)); }
  FS_INLINE void store_partial(float* at, int n) const { _mm256_maskstore_ps(at, first_n_of_8(n), r); }

  friend FS_INLINE Lane operator+(Lane a, Lane b) { return _mm256_add_ps(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a, Lane b) { return _mm256_sub_ps(a.r, b.r); }
  friend FS_INLINE Lane operator*(Lane a, Lane b) { return _mm256_mul_ps(a.r, b.r); }
  friend FS_INLINE Lane operator/(Lane a, Lane b) { return _mm256_div_ps(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a) { return _mm256_xor_ps(_mm256_set1_ps(-0.0f), a.r); }
  friend FS_INLINE Mask operator>(Lane a, Lane b) { return {_mm256_cmp_ps(a.r, b.r, _CMP_GT_OQ)}; }
  friend FS_INLINE Lane select(Mask m, Lane a, Lane b) { return _mm256_blendv_ps(b.r, a.r, m.r); }
  friend FS_INLINE Lane abs(Lane a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.r); }
  friend FS_INLINE Lane min(Lane a, Lane b) { return _mm256_min_ps(a.r, b.r); }
  friend FS_INLINE Lane max(Lane a, Lane b) { return _mm256_max_ps(a.r, b.r); }
  friend FS_INLINE Lane max_nan(Lane a, Lane b) {
    return select({_mm256_cmp_ps(a.r, a.r, _CMP_UNORD_Q)}, a, max(a, b));
  }
  friend FS_INLINE Lane sqrt(Lane a) { return _mm256_sqrt_ps(a.r); }

  // Integers of 32 bits beside the elements, from those of 16 and back, where they fit.
  using Words = __m256i;
  using Halves = __m128i;
  FS_INLINE static Words widen(Halves x) { return _mm256_cvtepu16_epi32(x); }
  FS_INLINE static Halves narrow(Words x) {
    return _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  }
};

template <>
struct Lane<double> {
  using value_type = double;
  static constexpr int size = 4;
  struct Mask {
    __m256d r;
  };
  __m256d r;

  FS_INLINE Lane(double x) : r(_mm256_set1_pd(x)) {}
  FS_INLINE Lane(__m256d x) : r(x) {}
  FS_INLINE static Lane load(const double* at) { return _mm256_loadu_pd(at); }
  FS_INLINE void store(double* at) const { _mm256_storeu_pd(at, r); }
  FS_INLINE static Lane load_partial(const double* at, int n) { return _mm256_maskload_pd(at, first_n_of_4(n)); }
  FS_INLINE void store_partial(double* at, int n) const { _mm256_maskstore_pd(at, first_n_of_4(n), r); }

  friend FS_INLINE Lane operator+(Lane a, Lane b) { return _mm256_add_pd(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a, Lane b) { return _mm256_sub_pd(a.r, b.r); }
  friend FS_INLINE Lane operator*(Lane a, Lane b) { return _mm256_mul_pd(a.r, b.r); }
  friend FS_INLINE Lane operator/(Lane a, Lane b) { return _mm256_div_pd(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a) { return _mm256_xor_pd(_mm256_set1_pd(-0.0), a.r); }
  friend FS_INLINE Mask operator>(Lane a, Lane b) { return {_mm256_cmp_pd(a.r, b.r, _CMP_GT_OQ)}; }
  friend FS_INLINE Lane select(Mask m, Lane a, Lane b) { return _mm256_blendv_pd(b.r, a.r, m.r); }
  friend FS_INLINE Lane abs(Lane a) { return _mm256_andnot_pd(_mm256_set1_pd(-0.0), a.r); }
  friend FS_INLINE Lane min(Lane a, Lane b) { return _mm256_min_pd(a.r, b.r); }
  friend FS_INLINE Lane max(Lane a, Lane b) { return _mm256_max_pd(a.r, b.r); }
  friend FS_INLINE Lane max_nan(Lane a, Lane b) {
    return select({_mm256_cmp_pd(a.r, a.r, _CMP_UNORD_Q)}, a, max(a, b));
  }
  friend FS_INLINE Lane sqrt(Lane a) { return _mm256_sqrt_pd(a.r); }
};

}  // namespace
}  // namespace fusedstep
