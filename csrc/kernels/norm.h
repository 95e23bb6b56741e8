// Sums in a fixed shape (table.h), so that the bits do not depend on target, threads or layout: 32 float64 lanes filled
// in order, then folded in halves 16, 8, 4, 2, 1. The square of a float32 is exact in float64, so nothing a float32
// gradient can hold overflows. A short last block leaves lanes at zero, which adds nothing.
#pragma once
#include "fold.h"

namespace fusedstep {
namespace {

// T: what x was, before it was float64.
template <Norm kNorm, class T, class W>
FS_INLINE W accumulate(W acc, W x) {
  if constexpr (kNorm == Norm::two && sizeof(T) == 4) {
    return add_exact_square(acc, x);
  } else if constexpr (kNorm == Norm::two) {
    return acc + x * x;
  } else if constexpr (kNorm == Norm::one) {
    return acc + abs(x);
  } else {
    return max_nan(abs(x), acc);
  }
}

template <Norm kNorm, class T>
double norm_block(const void* data, std::int64_t n) {
  constexpr int kGroups = kNormLanes / Wide::size;
  const T* x = static_cast<const T*>(data);
  Wide acc[kGroups];
  for (int k = 0; k < kGroups; ++k) acc[k] = Wide::zero();

  std::int64_t i = 0;
  for (; i + kNormLanes <= n; i += kNormLanes) {
    for (int k = 0; k < kGroups; ++k) {
      acc[k] = accumulate<kNorm, T>(acc[k], Wide::load(x + i + k * Wide::size));
    }
  }
  if (i < n) {
    T row[kNormLanes] = {};
    for (std::int64_t j = i; j < n; ++j) row[j - i] = x[j];
    for (int k = 0; k < kGroups; ++k) {
      acc[k] = accumulate<kNorm, T>(acc[k], Wide::load(row + k * Wide::size));
    }
  }

  double lane[kNormLanes];
  for (int k = 0; k < kGroups; ++k) acc[k].store(lane + k * Wide::size);
  return fold_lanes<kNorm>(lane);
}

}  // namespace
}  // namespace fusedstep
