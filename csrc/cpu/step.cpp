#include "dispatch.h"
#include "run.h"
#include "tiles.h"
#include "walk.h"

namespace fusedstep {

void run_step(const std::vector<Tensor>& work, const Plan& plan, bool reverse, double* stats) {
  const TargetTable& target = target_for_call();
  parallel(threads_for(plan), [&](int thread, int threads) {
    const auto [first, last] = plan.span(thread, threads);
    plan.visit(first, last, reverse, [&](std::int64_t chunk, const Chunk& c) {
      const Tensor& w = work[c.tensor];
      const StepFn kernel = target.step[w.rule][static_cast<int>(w.compute)];
      if (w.rides) {
        return step_riding(target, w, c.begin, c.end, w.stats >= 0 ? stats + chunk : nullptr, plan.chunks());
      }
      if (w.apart) return step_apart(target, kernel, w, c.begin, c.end);
      const std::int64_t offset = c.begin * size_of(w.compute);
      void* streams[kMaxStreams];
      for (int k = 0; k < w.streams; ++k) streams[k] = static_cast<char*>(w.stream[k].data) + offset;
      kernel(w.uniform, streams, c.end - c.begin);
    });
  });
}

}  // namespace fusedstep
