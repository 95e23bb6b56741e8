#include "dispatch.h"
#include "run.h"
#include "tiles.h"
#include "walk.h"

namespace fusedstep {

void run_step(const std::vector<Tensor>& work, const Plan& plan, bool reverse) {
  const TargetTable& target = target_for_call();
  parallel(threads_for(plan), [&](int thread, int threads) {
    const auto [first, last] = plan.span(thread, threads);
    plan.visit(first, last, reverse, [&](std::int64_t, const Chunk& c) {
      const Tensor& w = work[c.tensor];
      const StepFn kernel = target.step[w.rule][static_cast<int>(w.compute)];
      const Format plain = plain_format(w.compute);
      const std::int64_t offset = c.begin * size_of(w.compute);
      int apart = w.strided != nullptr;
      void* streams[kMaxStreams];
      for (int k = 0; k < w.streams; ++k) {
        apart |= w.stream[k].format != plain;
        streams[k] = static_cast<char*>(w.stream[k].data) + offset;
      }
      if (apart) {
        step_apart(target, kernel, w, c.begin, c.end);
      } else {
        kernel(w.uniform, streams, c.end - c.begin);
      }
    });
  });
}

}  // namespace fusedstep
