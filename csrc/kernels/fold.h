// How two parts of a sum become one, here and nowhere else; missing parts are zero and add nothing.
#pragma once
#include "table.h"

namespace fusedstep {
namespace {

// Their sum, or the larger one, NaN if either is.
template <Norm kNorm>
FS_INLINE double fold(double a, double b) {
  if constexpr (kNorm == Norm::inf) {
    return a > b || a != a ? a : b;
  } else {
    return a + b;
  }
}
FS_INLINE double fold(Norm norm, double a, double b) {
  return norm == Norm::inf ? fold<Norm::inf>(a, b) : fold<Norm::one>(a, b);
}

// The lanes of a block, in halves 16, 8, 4, 2, 1; in place.
template <Norm kNorm>
FS_INLINE double fold_lanes(double* lane) {
  for (int half = kNormLanes / 2; half > 0; half /= 2) {
    for (int k = 0; k < half; ++k) lane[k] = fold<kNorm>(lane[k], lane[k + half]);
  }
  return lane[0];
}

}  // namespace
}  // namespace fusedstep
