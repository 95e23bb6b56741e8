// Steps from several threads at once, each on the core's own pool, while another thread changes target and thread
// count: for ThreadSanitizer. Every result is compared with that of one thread alone. As the bindings do under the
// interpreter lock, calls are put together one at a time and run side by side. Prints "equal".
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "../../csrc/call/given.h"
#include "../../csrc/call/group.h"
#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/run.h"
#include "../../csrc/cpu/threads.h"

namespace fs = fusedstep;

namespace {

constexpr std::int64_t kSizes[] = {600'001, 17, 40'000};  // more than the pool is woken for
constexpr std::int64_t kShape[] = {200, 200};
constexpr std::int64_t kStride[] = {400, 2};  // of the last: every second element
constexpr int kSteps = 4, kCallers = 4;

struct Model {
  std::deque<std::vector<float>> memory;
  std::vector<fs::Array> arrays;

  Model() {
    for (const std::int64_t& n : kSizes) {
      for (int stream = 0; stream < 4; ++stream) {
        const bool strided = n == kSizes[2];
        std::vector<float>& x = memory.emplace_back(strided ? 2 * n : n);
        for (std::size_t k = 0; k < x.size(); ++k) x[k] = static_cast<float>((k * 37 + stream) % 101) / 101.0f;
        fs::Array a{};
        a.data = x.data();
        a.numel = n;
        a.shape = strided ? kShape : &n;
        a.stride = strided ? kStride : nullptr;
        a.ndim = strided ? 2 : 1;
        a.device = fs::kHost;
        a.format = fs::Format::float32;
        a.contiguous = !strided;
        arrays.push_back(a);
      }
    }
  }
};

std::mutex interpreter;

void step(Model& model, const fs::Group& group, int number) {
  std::vector<fs::Given> given;
  fs::Call call;
  {
    const std::lock_guard lock(interpreter);
    given.reserve(std::size(kSizes));
    call.options.push_back(group.options);
    call.options[0].host.grad_scale = 1.0;
    call.phases |= fs::kMeasure | fs::kFold;
    call.least_max_norm = group.options.host.max_norm;
    for (std::size_t t = 0; t < std::size(kSizes); ++t) {
      fs::Given& g = given.emplace_back();
      for (int k = 0; k < 4; ++k) g.array[k] = model.arrays[4 * t + k];
      g.group = &group;
      g.index = static_cast<std::int64_t>(t);
      g.step = number;
    }
    fs::collect(given, call);
  }
  const auto run = fs::cpu::start(call);
  run->fold();
  run->prepare();
  run->apply();
}

bool same(const Model& a, const Model& b) {
  for (std::size_t k = 0; k < a.memory.size(); ++k) {
    if (std::memcmp(a.memory[k].data(), b.memory[k].data(), a.memory[k].size() * sizeof(float)) != 0) return false;
  }
  return true;
}

}  // namespace

int main() {
  const fs::Group group = fs::make_group("adam", "adam", {"exp_avg", "exp_avg_sq"}, {"exp_avg", "exp_avg_sq"},
                                         {{"lr", 0.01}, {"beta1", 0.9}, {"beta2", 0.99}, {"eps", 1e-8}}, 0.1, false,
                                         false, 0.5, {}, true, "", false, {"nearest", "stochastic"}, 0, false, "grad");
  Model alone;
  fs::set_max_threads(1);
  for (int number = 1; number <= kSteps; ++number) step(alone, group, number);

  fs::set_max_threads(3);
  std::deque<Model> models(kCallers);
  std::vector<std::thread> callers;
  for (Model& model : models) {
    callers.emplace_back([&model, &group] {
      for (int number = 1; number <= kSteps; ++number) step(model, group, number);
    });
  }
  std::atomic<bool> done{false};
  std::thread settings([&done] {
    const std::vector<std::string> targets = fs::available_targets();
    for (std::size_t k = 0; !done; ++k) {
      fs::use_target(targets[k % targets.size()]);
      fs::set_max_threads(2 + static_cast<int>(k % 3));
      const bool asked = fs::max_threads() > 0 && !fs::has_openmp() && *fs::last_target();
      if (!asked) std::abort();
      std::this_thread::yield();
    }
  });
  for (std::thread& caller : callers) caller.join();
  done = true;
  settings.join();
  for (const Model& model : models) {
    if (!same(model, alone)) {
      std::puts("different");
      return 1;
    }
  }
  std::puts("equal");
}
