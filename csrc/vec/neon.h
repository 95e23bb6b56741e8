// 128-bit lanes: 4 float32 or 2 float64.
// Instruction set: Advanced SIMD of AArch64, part of its baseline. Flags: none.
// Rounding: FADD, FMUL, FDIV and FSQRT are correctly rounded; FMLA is never named, and -ffp-contract=off keeps it out.
// min and max are compare-and-select: FMIN and FMAX order -0 before 0 and return a NaN for a NaN in either operand,
// where the scalar lane returns the second operand. FNEG and FABS move the sign bit alone. Subnormals are kept while
// FPCR.FZ is 0 (FloatEnvironment). Partial loads and stores go element by element: there is no masked access before
// SVE.
#pragma once
#include <arm_neon.h>

#include "../base.h"

namespace fusedstep {
namespace {

template <class T>
struct Lane;

template <>
struct Lane<float> {
  using value_type = float;
  static constexpr int size = 4;
  struct Mask {
    uint32x4_t r;
  };
  float32x4_t r;

  FS_INLINE Lane(float x) : r(vdupq_n_f32(x)) {}
  FS_INLINE Lane(float32x4_t x) : r(x) {}
  FS_INLINE static Lane load(const float* at) { return vld1q_f32(at); }
  FS_INLINE void store(float* at) const { vst1q_f32(at, r); }
  FS_INLINE static Lane load_partial(const float* at, int n) {
    float32x4_t x = vdupq_n_f32(0.0f);
    if (n > 0) x = vld1q_lane_f32(at, x, 0);
    if (n > 1) x = vld1q_lane_f32(at + 1, x, 1);
    if (n > 2) x = vld1q_lane_f32(at + 2, x, 2);
    return x;
  }
  FS_INLINE void store_partial(float* at, int n) const {
    if (n > 0) vst1q_lane_f32(at, r, 0);
    if (n > 1) vst1q_lane_f32(at + 1, r, 1);
    if (n > 2) vst1q_lane_f32(at + 2, r, 2);
  }

  friend FS_INLINE Lane operator+(Lane a, Lane b) { return vaddq_f32(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a, Lane b) { return vsubq_f32(a.r, b.r); }
  friend FS_INLINE Lane operator*(Lane a, Lane b) { return vmulq_f32(a.r, b.r); }
  friend FS_INLINE Lane operator/(Lane a, Lane b) { return vdivq_f32(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a) { return vnegq_f32(a.r); }
  friend FS_INLINE Mask operator>(Lane a, Lane b) { return {vcgtq_f32(a.r, b.r)}; }
  friend FS_INLINE Lane select(Mask m, Lane a, Lane b) { return vbslq_f32(m.r, a.r, b.r); }
  friend FS_INLINE Lane abs(Lane a) { return vabsq_f32(a.r); }
  friend FS_INLINE Lane min(Lane a, Lane b) { return vbslq_f32(vcltq_f32(a.r, b.r), a.r, b.r); }
  friend FS_INLINE Lane max(Lane a, Lane b) { return vbslq_f32(vcgtq_f32(a.r, b.r), a.r, b.r); }
  friend FS_INLINE Lane max_nan(Lane a, Lane b) { return select({vceqq_f32(a.r, a.r)}, max(a, b), a); }
  friend FS_INLINE Lane sqrt(Lane a) { return vsqrtq_f32(a.r); }

  // Integers of 32 bits beside the elements, from those of 16 and back, where they fit.
  using Words = uint32x4_t;
  using Halves = uint16x4_t;
  FS_INLINE static Words widen(Halves x) { return vmovl_u16(x); }
  FS_INLINE static Halves narrow(Words x) { return vmovn_u32(x); }
};

template <>
struct Lane<double> {
  using value_type = double;
  static constexpr int size = 2;
  struct Mask {
    uint64x2_t r;
  };
  float64x2_t r;

  FS_INLINE Lane(double x) : r(vdupq_n_f64(x)) {}
  FS_INLINE Lane(float64x2_t x) : r(x) {}
  FS_INLINE static Lane load(const double* at) { return vld1q_f64(at); }
  FS_INLINE void store(double* at) const { vst1q_f64(at, r); }
  FS_INLINE static Lane load_partial(const double* at, int n) {
    const float64x2_t zero = vdupq_n_f64(0.0);
    return n > 0 ? vld1q_lane_f64(at, zero, 0) : zero;
  }
  FS_INLINE void store_partial(double* at, int n) const {
    if (n > 0) vst1q_lane_f64(at, r, 0);
  }

  friend FS_INLINE Lane operator+(Lane a, Lane b) { return vaddq_f64(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a, Lane b) { return vsubq_f64(a.r, b.r); }
  friend FS_INLINE Lane operator*(Lane a, Lane b) { return vmulq_f64(a.r, b.r); }
  friend FS_INLINE Lane operator/(Lane a, Lane b) { return vdivq_f64(a.r, b.r); }
  friend FS_INLINE Lane operator-(Lane a) { return vnegq_f64(a.r); }
  friend FS_INLINE Mask operator>(Lane a, Lane b) { return {vcgtq_f64(a.r, b.r)}; }
  friend FS_INLINE Lane select(Mask m, Lane a, Lane b) { return vbslq_f64(m.r, a.r, b.r); }
  friend FS_INLINE Lane abs(Lane a) { return vabsq_f64(a.r); }
  friend FS_INLINE Lane min(Lane a, Lane b) { return vbslq_f64(vcltq_f64(a.r, b.r), a.r, b.r); }
  friend FS_INLINE Lane max(Lane a, Lane b) { return vbslq_f64(vcgtq_f64(a.r, b.r), a.r, b.r); }
  friend FS_INLINE Lane max_nan(Lane a, Lane b) { return select({vceqq_f64(a.r, a.r)}, max(a, b), a); }
  friend FS_INLINE Lane sqrt(Lane a) { return vsqrtq_f64(a.r); }
};

struct Wide {
  static constexpr int size = 2;
  float64x2_t r;

  FS_INLINE static Wide zero() { return {vdupq_n_f64(0.0)}; }
  FS_INLINE static Wide load(const float* at) { return {vcvt_f64_f32(vld1_f32(at))}; }
  FS_INLINE static Wide load(const double* at) { return {vld1q_f64(at)}; }
  FS_INLINE void store(double* at) const { vst1q_f64(at, r); }

  friend FS_INLINE Wide operator+(Wide a, Wide b) { return {vaddq_f64(a.r, b.r)}; }
  friend FS_INLINE Wide operator*(Wide a, Wide b) { return {vmulq_f64(a.r, b.r)}; }
  friend FS_INLINE Wide add_exact_square(Wide acc, Wide x) { return {vfmaq_f64(acc.r, x.r, x.r)}; }
  friend FS_INLINE Wide abs(Wide a) { return {vabsq_f64(a.r)}; }
  // b where a is a number that is not larger than it.
  friend FS_INLINE Wide max_nan(Wide a, Wide b) {
    return {vbslq_f64(vbicq_u64(vceqq_f64(a.r, a.r), vcgtq_f64(a.r, b.r)), b.r, a.r)};
  }
};

}  // namespace
}  // namespace fusedstep
