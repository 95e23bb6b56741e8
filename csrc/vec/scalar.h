// One-element lanes, for the scalar target and as the meaning of every op that the wider lanes repeat.
// Instruction set: the compiler's baseline. Flags: none. Rounding: each op once, to T; the build turns contraction off.
//
// min and max are compare-and-select: with a NaN the second operand is the result, as in MINPS. max_nan is the larger
// one, a NaN if either is: its second operand where both are equal, as zeros of either sign are. a > b is false with a
// NaN, and select takes whole values, NaN and the sign of a zero included. abs and minus move the sign bit alone.
#pragma once
#include "../base.h"

namespace fusedstep {
namespace {

template <class T>
struct Lane {
  using value_type = T;
  static constexpr int size = 1;
  struct Mask {
    bool r;
  };
  T r;

  FS_INLINE Lane(T x) : r(x) {}
  FS_INLINE static Lane load(const T* at) { return *at; }
  FS_INLINE void store(T* at) const { *at = r; }
  // The first n < size elements; the rest read as zero and are not written.
  FS_INLINE static Lane load_partial(const T* at, int n) { return n > 0 ? *at : T(0); }
  FS_INLINE void store_partial(T* at, int n) const {
    if (n > 0) *at = r;
  }

  friend FS_INLINE Lane operator+(Lane a, Lane b) { return a.r + b.r; }
  friend FS_INLINE Lane operator-(Lane a, Lane b) { return a.r - b.r; }
  friend FS_INLINE Lane operator*(Lane a, Lane b) { return a.r * b.r; }
  friend FS_INLINE Lane operator/(Lane a, Lane b) { return a.r / b.r; }
  friend FS_INLINE Lane operator-(Lane a) { return -a.r; }
  friend FS_INLINE Mask operator>(Lane a, Lane b) { return {a.r > b.r}; }
  friend FS_INLINE Lane select(Mask m, Lane a, Lane b) { return m.r ? a : b; }
  friend FS_INLINE Lane abs(Lane a) {
    if constexpr (sizeof(T) == 4) {
      return __builtin_fabsf(a.r);
    } else {
      return __builtin_fabs(a.r);
    }
  }
  friend FS_INLINE Lane min(Lane a, Lane b) { return a.r < b.r ? a : b; }
  friend FS_INLINE Lane max(Lane a, Lane b) { return a.r > b.r ? a : b; }
  friend FS_INLINE Lane max_nan(Lane a, Lane b) { return a.r > b.r || a.r != a.r ? a : b; }
  friend FS_INLINE Lane sqrt(Lane a) {
    if constexpr (sizeof(T) == 4) {
      return __builtin_sqrtf(a.r);
    } else {
      return __builtin_sqrt(a.r);
    }
  }
};

// Accumulators of the norms: Wide::size float64 lanes side by side, filled from storage. add_exact_square is acc + x *
// x where x is a float32: its square is exact in float64, so that a fused operation rounds to the same bits.
struct Wide {
  static constexpr int size = 1;
  double r;

  FS_INLINE static Wide zero() { return {0.0}; }
  FS_INLINE static Wide load(const float* at) { return {static_cast<double>(*at)}; }
  FS_INLINE static Wide load(const double* at) { return {*at}; }
  FS_INLINE void store(double* at) const { *at = r; }

  friend FS_INLINE Wide operator+(Wide a, Wide b) { return {a.r + b.r}; }
  friend FS_INLINE Wide operator*(Wide a, Wide b) { return {a.r * b.r}; }
  friend FS_INLINE Wide add_exact_square(Wide acc, Wide x) { return acc + x * x; }
  friend FS_INLINE Wide abs(Wide a) { return {__builtin_fabs(a.r)}; }
  friend FS_INLINE Wide max_nan(Wide a, Wide b) { return a.r > b.r || a.r != a.r ? a : b; }
};

}  // namespace
}  // namespace fusedstep
