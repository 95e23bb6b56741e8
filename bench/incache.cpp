// Times every kernel of every available target on one tensor that stays in cache, without Python: bench/incache.py
// builds and runs it. Arguments: bytes of all arrays together, rounds. One line of JSON for each rule (or norm) and
// dtype. Targets take turns, so that noise hits all alike.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "../csrc/cpu/dispatch.h"
#include "../csrc/kernels/registry.h"
#include "kernels.h"

namespace fs = fusedstep;

namespace {

constexpr double kSampleSeconds = 100e-6;

using Kernel = std::function<void(const fs::TargetTable&)>;

double seconds(const Kernel& kernel, const fs::TargetTable& target, int repeats) {
  const auto start = std::chrono::steady_clock::now();
  for (int k = 0; k < repeats; ++k) kernel(target);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void report(const std::string& name, fs::Compute compute, std::int64_t n, int rounds, const Kernel& kernel) {
  std::vector<const fs::TargetTable*> targets;
  for (const std::string& target : fs::available_targets()) {
    fs::use_target(target);
    targets.push_back(&fs::active_target());
  }
  std::vector<int> repeats;
  for (const fs::TargetTable* t : targets) {
    int count = 1;
    while (seconds(kernel, *t, count) < kSampleSeconds) count *= 2;
    repeats.push_back(count);
  }
  std::vector<std::vector<double>> samples(targets.size());
  for (int r = 0; r < rounds; ++r) {
    for (std::size_t t = 0; t < targets.size(); ++t) {
      const double nanoseconds = seconds(kernel, *targets[t], repeats[t]) * 1e9;
      samples[t].push_back(nanoseconds / repeats[t] / static_cast<double>(n) * 1000.0);
    }
  }
  std::printf(R"({"name": "%s", "dtype": "%s", "elements": %lld, "samples": {)", name.c_str(),
              fs::format_name(fs::plain_format(compute)), static_cast<long long>(n));
  for (std::size_t t = 0; t < targets.size(); ++t) {
    std::printf("%s\"%s\": [", t ? ", " : "", targets[t]->name);
    for (int r = 0; r < rounds; ++r) std::printf("%s%.2f", r ? ", " : "", samples[t][r]);
    std::printf("]");
  }
  std::printf("}}\n");
  std::fflush(stdout);
}

template <class T>
void run(fs::Compute compute, std::int64_t bytes, int rounds) {
  const int d = static_cast<int>(compute);
  for (std::size_t rule = 0; rule < fs::all_rules().size(); ++rule) {
    const std::int64_t streams = 2 + static_cast<std::int64_t>(fs::all_rules()[rule].state.size());
    const std::int64_t n = bytes / (streams * static_cast<std::int64_t>(sizeof(T)));
    const fs::RuleArrays<T> a(rule, compute, n);
    report(a.name, compute, n, rounds,
           [&](const fs::TargetTable& t) { t.step[rule][d](a.uniform.bytes, a.streams.data(), n); });
  }
  const std::vector<T> x(fs::kNormBlock, T(0.5));
  for (int norm = 0; norm < fs::kNorms; ++norm) {
    volatile double sink;
    report(fs::kNormNames[norm], compute, fs::kNormBlock, rounds,
           [&](const fs::TargetTable& t) { sink = t.norm[norm][d](x.data(), fs::kNormBlock); });
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  run<float>(fs::Compute::float32, std::atoll(argv[1]), std::atoi(argv[2]));
  run<double>(fs::Compute::float64, std::atoll(argv[1]), std::atoi(argv[2]));
}
