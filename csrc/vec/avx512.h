// 512-bit lanes: 16 float32 or 8 float64.
// Instruction set: AVX-512 F and DQ; BW and VL come with both on every such CPU and are asked for with them.
// Flags: -mavx512f -mavx512bw -mavx512dq -mavx512vl. F has fused multiply-add: only -ffp-contract=off keeps it out.
// Rounding: VADDPS, VMULPS, VDIVPS and VSQRTPS are correctly rounded, VMINPS and VMAXPS return the second operand on a
// NaN: the scalar lane, element by element. Partial loads and stores are masked and neither touch nor fault past n.
#pragma once
// GCC 12 takes the undefined operands inside its own intrinsics for uninitialised variables.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "wide256.h"

namespace fusedstep {
namespace {

template <class T>
struct Lane;

FS_INLINE unsigned first_n(int n) { return (1u << n) - 1u; }

template <>
struct Lane<float> {
  using value_type = float;
  static constexpr int size = 16;
  struct Mask {
    __mmask16 r;
  };
  __m512 r;

  FS_INLINE Lane(float x) : r(_mm512_set1_ps(x)) {}
  FS_INLINE Lane(__m512 x) : r(x) {}
  FS_INLINE static Lane load(const float* at) { return _mm512_loadu_ps(at); }
  FS_INLINE void store(float* at) const { _mm512_storeu_ps(at, r); }
  FS_INLINE static Lane load_partial(const float* at, int n) { return _mm512_maskz_loadu_ps(first_n(n), at); }
  FS_INLINE void store_partial(float* at, int n) const { _mm512_mask_storeu_ps(at, first_n(n), r); }

  friend FS_INLINE Lane operator+(Lane a, Lane b) { return _mm512_add_ps(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a, Lane b) { return _mm512_sub_ps(a.r, b.r); }
  friend FS_INLINE Lane operator*(Lane a, Lane b) { return _mm512_mul_ps(a.r, b.r); }
  friend FS_INLINE Lane operator/(Lane a, Lane b) { return _mm512_div_ps(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a) { return _mm512_xor_ps(_mm512_set1_ps(-0.0f), a.r); }
  friend FS_INLINE Mask operator>(Lane a, Lane b) { return {_mm512_cmp_ps_mask(a.r, b.r, _CMP_GT_OQ)}; }
  friend FS_INLINE Lane select(Mask m, Lane a, Lane b) { return _mm512_mask_mov_ps(b.r, m.r, a.r); }
  friend FS_INLINE Lane abs(Lane a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.r); }
  friend FS_INLINE Lane min(Lane a, Lane b) { return _mm512_min_ps(a.r, b.r); }
  friend FS_INLINE Lane max(Lane a, Lane b) { return _mm512_max_ps(a.r, b.r); }
  friend FS_INLINE Lane max_nan(Lane a, Lane b) {
    return select({_mm512_cmp_ps_mask(a.r, a.r, _CMP_UNORD_Q)}, a, max(a, b));
  }
  friend FS_INLINE Lane sqrt(Lane a) { return _mm512_sqrt_ps(a.r); }

  // Integers of 32 bits beside the elements, from those of 16 and back, where they fit.
  using Words = __m512i;
  using Halves = __m256i;
  FS_INLINE static Words widen(Halves x) { return _mm512_cvtepu16_epi32(x); }
  FS_INLINE static Halves narrow(Words x) { return _mm512_cvtepi32_epi16(x); }
};

template <>
struct Lane<double> {
  using value_type = double;
  static constexpr int size = 8;
  struct Mask {
    __mmask8 r;
  };
  __m512d r;

  FS_INLINE Lane(double x) : r(_mm512_set1_pd(x)) {}
  FS_INLINE Lane(__m512d x) : r(x) {}
  FS_INLINE static Lane load(const double* at) { return _mm512_loadu_pd(at); }
  FS_INLINE void store(double* at) const { _mm512_storeu_pd(at, r); }
  FS_INLINE static Lane load_partial(const double* at, int n) { return _mm512_maskz_loadu_pd(first_n(n), at); }
  FS_INLINE void store_partial(double* at, int n) const { _mm512_mask_storeu_pd(at, first_n(n), r); }

  friend FS_INLINE Lane operator+(Lane a, Lane b) { return _mm512_add_pd(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a, Lane b) { return _mm512_sub_pd(a.r, b.r); }
  friend FS_INLINE Lane operator*(Lane a, Lane b) { return _mm512_mul_pd(a.r, b.r); }
  friend FS_INLINE Lane operator/(Lane a, Lane b) { return _mm512_div_pd(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a) { return _mm512_xor_pd(_mm512_set1_pd(-0.0), a.r); }
  friend FS_INLINE Mask operator>(Lane a, Lane b) { return {_mm512_cmp_pd_mask(a.r, b.r, _CMP_GT_OQ)}; }
  friend FS_INLINE Lane select(Mask m, Lane a, Lane b) { return _mm512_mask_mov_pd(b.r, m.r, a.r); }
  friend FS_INLINE Lane abs(Lane a) { return _mm512_andnot_pd(_mm512_set1_pd(-0.0), a.r); }
  friend FS_INLINE Lane min(Lane a, Lane b) { return _mm512_min_pd(a.r, b.r); }
  friend FS_INLINE Lane max(Lane a, Lane b) { return _mm512_max_pd(a.r, b.r); }
  friend FS_INLINE Lane max_nan(Lane a, Lane b) {
    return select({_mm512_cmp_pd_mask(a.r, a.r, _CMP_UNORD_Q)}, a, max(a, b));
  }
  friend FS_INLINE Lane sqrt(Lane a) { return _mm512_sqrt_pd(a.r); }
};

}  // namespace
}  // namespace fusedstep
