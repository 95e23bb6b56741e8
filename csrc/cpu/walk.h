// Strided arrays on the CPU, walked as runs along their last dimension; and how many threads a plan is worth.
#pragma once
#include <algorithm>

#include "../call/plan.h"
#include "../call/tensor.h"
#include "threads.h"

namespace fusedstep {

// Below these many elements one thread is faster than waking another: AdamW on a 2-core Zen 4, where an OpenMP team
// that torch keeps awake takes 57 us for 32,768 elements against 66, and the sleeping pool 241 us for 524,288 against
// 227.
inline constexpr std::int64_t kSerialBelow = 32768;
inline constexpr std::int64_t kSerialBelowForPool = 524288;

inline int threads_for(const Plan& plan) {
  if (plan.elements() < kSerialBelow) return 1;
  if (plan.elements() < kSerialBelowForPool && !has_openmp()) return 1;
  return static_cast<int>(std::min<std::int64_t>(max_threads(), plan.chunks()));
}

// Visits elements [begin, end) of the row-major order of a layout as runs along the last dimension; without one, as a
// single run. Behind the offsets in the streams, at kPlace, the index in the whole tensor, less its origin.
template <class Visit>
void visit_runs(const Strided* layout, int streams, std::int64_t begin, std::int64_t end, Visit&& visit) {
  if (!layout) {
    std::int64_t offset[kMaxStreams + 1];
    std::fill_n(offset, streams, begin);
    offset[kPlace] = begin;
    visit(offset, end - begin);
    return;
  }
  const Strided& s = *layout;
  const int last = static_cast<int>(s.size.size()) - 1;
  const bool has_place = !s.stride[kPlace].empty();
  while (begin < end) {
    std::int64_t offset[kMaxStreams + 1] = {}, rest = begin;
    std::int64_t run = 1;
    if (!has_place) offset[kPlace] = begin;
    for (int d = last; d >= 0; --d) {
      const std::int64_t index = rest % s.size[d];
      rest /= s.size[d];
      if (d == last) run = std::min(s.size[d] - index, end - begin);
      for (int k = 0; k < streams; ++k) offset[k] += index * s.stride[k][d];
      if (has_place) offset[kPlace] += index * s.stride[kPlace][d];
    }
    visit(offset, run);
    begin += run;
  }
}

inline std::int64_t run_stride(const Strided* layout, int stream) {
  return layout && !layout->stride[stream].empty() ? layout->stride[stream].back() : 1;
}

}  // namespace fusedstep
