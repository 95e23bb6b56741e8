#include <algorithm>

#include "dispatch.h"
#include "run.h"
#include "walk.h"

namespace fusedstep {
namespace {

// Rows of this many elements that lie flat in every stream (blocks of columns of one matrix) need no packing.
constexpr std::int64_t kFlatRow = 64;

bool has_flat_rows(const StepWork& w) {
  const Strided& s = *w.strided;
  return s.size.back() >= kFlatRow &&
         std::all_of(s.stride, s.stride + w.streams, [](const auto& stride) { return stride.back() == 1; });
}

void step_rows(StepFn kernel, const StepWork& w, std::int64_t begin, std::int64_t end) {
  visit_runs(*w.strided, w.streams, begin, end, [&](const std::int64_t* offset, std::int64_t run) {
    void* streams[kMaxStreams];
    for (int k = 0; k < w.streams; ++k) {
      streams[k] = static_cast<char*>(w.stream[k].data) + offset[k] * item_size(w.stream[k].format);
    }
    kernel(w.uniform, streams, run);
  });
}

// Strided elements pass through contiguous buffers and the same kernel: no second formula, no copy of the tensor.
template <class T>
void step_strided(StepFn kernel, const StepWork& w, std::int64_t begin, std::int64_t end) {
  if (has_flat_rows(w)) return step_rows(kernel, w, begin, end);
  constexpr std::int64_t kBuffer = 512;
  T buffer[kMaxStreams][kBuffer];
  void* streams[kMaxStreams];
  for (int k = 0; k < kMaxStreams; ++k) streams[k] = buffer[k];
  const Strided& s = *w.strided;
  for (; begin < end; begin += kBuffer) {
    const std::int64_t n = std::min(kBuffer, end - begin);
    std::int64_t at = 0;
    visit_runs(s, w.streams, begin, begin + n, [&](const std::int64_t* offset, std::int64_t run) {
      for (int k = 0; k < w.streams; ++k) {
        copy_run(buffer[k] + at, 1, static_cast<const T*>(w.stream[k].data) + offset[k], s.stride[k].back(), run);
      }
      at += run;
    });
    kernel(w.uniform, streams, n);
    at = 0;
    visit_runs(s, w.streams, begin, begin + n, [&](const std::int64_t* offset, std::int64_t run) {
      for (int k = 0; k < w.streams; ++k) {
        if (k == 1) continue;  // the gradient is never written
        copy_run(static_cast<T*>(w.stream[k].data) + offset[k], s.stride[k].back(), buffer[k] + at, 1, run);
      }
      at += run;
    });
  }
}

}  // namespace

void run_step(const std::vector<StepWork>& work, const Plan& plan, bool reverse) {
  const TargetTable& target = target_for_call();
  parallel(threads_for(plan), [&](int thread, int threads) {
    const auto [first, last] = plan.span(thread, threads);
    plan.visit(first, last, reverse, [&](std::int64_t, const Chunk& c) {
      const StepWork& w = work[c.tensor];
      const StepFn kernel = target.step[w.rule][static_cast<int>(w.compute)];
      if (w.strided) {
        (w.compute == DType::float32 ? step_strided<float> : step_strided<double>)(kernel, w, c.begin, c.end);
        return;
      }
      void* streams[kMaxStreams];
      for (int k = 0; k < w.streams; ++k) {
        streams[k] = static_cast<char*>(w.stream[k].data) + c.begin * item_size(w.stream[k].format);
      }
      kernel(w.uniform, streams, c.end - c.begin);
    });
  });
}

}  // namespace fusedstep
