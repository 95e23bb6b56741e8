// The cases whose instructions bench/instructions.py counts under Callgrind, without Python. Arguments: the targets to
// count. Prints the compiler, then a line for each case in the order of the calls of counted().
//   loop     one tensor through the kernel: the cost per element
//   tensors  many small tensors through a step of the core, plan and run, on one thread: the cost per tensor
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "../csrc/cpu/dispatch.h"
#include "../csrc/cpu/run.h"
#include "../csrc/cpu/threads.h"
#include "../csrc/kernels/registry.h"

namespace fs = fusedstep;

// Callgrind collects in here alone, by this name.
extern "C" [[gnu::noinline, gnu::used]] void counted(const std::function<void()>& call) {
  call();
  asm volatile("" ::: "memory");  // no tail call, which would leave before it is done
}

namespace {

constexpr std::int64_t kElements = 4099;  // the last lane is partial in every target
// So few tensors that the plan's arrays come from malloc's cache of small sizes, at the same cost every time.
constexpr std::int64_t kTensors = 100, kLargest = 8;

#if defined(__clang__)
constexpr const char* kCompiler = "Clang";
constexpr int kVersion[] = {__clang_major__, __clang_minor__};
#else
constexpr const char* kCompiler = "GCC";
constexpr int kVersion[] = {__GNUC__, __GNUC_MINOR__};
#endif
#if defined(__x86_64__)
constexpr const char* kMachine = "x86_64";
#elif defined(__aarch64__)
constexpr const char* kMachine = "aarch64";
#else
constexpr const char* kMachine = "unknown";
#endif

constexpr const char* kNormNames[fs::kNorms] = {"norm 1", "norm 2", "norm inf"};

// The streams of one rule, n elements each: gradients that alternate in sign; no value becomes subnormal.
template <class T>
struct RuleArrays {
  std::string name;  // of the variant: the rule's and those of its state arrays
  std::vector<std::vector<T>> arrays;
  std::vector<void*> streams;
  fs::UniformBytes uniform;

  RuleArrays(std::size_t rule, fs::Compute compute, std::int64_t n) {
    const fs::RuleInfo& info = fs::all_rules()[rule];
    name = info.name;
    for (const std::string& s : info.state) name += "-" + s;
    arrays.assign(2 + info.state.size(), std::vector<T>(n, T(1)));
    for (std::vector<T>& a : arrays) streams.push_back(a.data());
    for (std::int64_t i = 0; i < n; ++i) arrays[1][i] = T(i % 2 ? 1e-3 : -1e-3);
    fs::StepOptions options{{}, 0.0, 1e30, -1.0, 1.0, false, false};
    for (std::size_t k = 0; k < info.hyper.size(); ++k) {
      options.hyper[k] = info.hyper[k] == "lr" ? 1e-6 : info.hyper[k] == "eps" ? 1e-8 : 0.9;
    }
    fs::Scalars scalars{{0.5, 0.5}, {}};
    fs::prepare(static_cast<int>(rule), compute, options, 0.0, 10, uniform, &scalars);
  }
  RuleArrays(const RuleArrays&) = delete;  // streams point into arrays
};

void count(const std::string& name, fs::Compute compute, const char* kind, const std::function<void()>& call) {
  call();  // what only a first call does is not counted
  counted(call);
  std::printf("%s %s %s %s\n", fs::active_target().name, name.c_str(), fs::format_name(fs::plain_format(compute)),
              kind);
}

template <class T>
void count_all(fs::Compute compute) {
  const int d = static_cast<int>(compute);
  const fs::TargetTable& target = fs::active_target();
  std::vector<std::int64_t> numels;
  for (std::int64_t t = 0; t < kTensors; ++t) numels.push_back(t % (kLargest + 1));
  for (std::size_t rule = 0; rule < fs::all_rules().size(); ++rule) {
    const RuleArrays<T> a(rule, compute, kElements);
    count(a.name, compute, "loop", [&] { target.step[rule][d](a.uniform.bytes, a.streams.data(), kElements); });
    const int streams = static_cast<int>(a.streams.size());
    std::vector<fs::Tensor> work;
    for (std::int64_t t = 0; t < kTensors; ++t) {
      work.push_back({{}, streams, compute, static_cast<int>(rule), numels[t], &a.uniform, nullptr});
      for (int k = 0; k < streams; ++k)
        work[t].stream[k] = {static_cast<T*>(a.streams[k]) + t * kLargest, fs::plain_format(compute)};
    }
    count(a.name, compute, "tensors", [&] { fs::run_step(work, fs::Plan(numels), false); });
  }
  const std::vector<T> x(kElements, T(0.5));
  const double types[fs::kNorms] = {1.0, 2.0, INFINITY};
  for (int norm = 0; norm < fs::kNorms; ++norm) {
    volatile double sink;
    count(kNormNames[norm], compute, "loop", [&] { sink = target.norm[norm][d](x.data(), fs::kNormBlock); });
    std::vector<fs::Tensor> work;
    for (std::int64_t t = 0; t < kTensors; ++t) {
      const fs::Stream g = {const_cast<T*>(x.data()) + t * kLargest, fs::plain_format(compute)};
      work.push_back({{g, g}, 2, compute, 0, numels[t], nullptr, nullptr});
      work[t].sum = static_cast<std::int32_t>(t);
    }
    count(kNormNames[norm], compute, "tensors",
          [&] { sink = fs::fold_sums(fs::run_sums(work, types[norm]), types[norm]).total; });
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::printf("%s %d.%d %s\n", kCompiler, kVersion[0], kVersion[1], kMachine);
  fs::set_max_threads(1);
  for (const std::string& target : fs::available_targets()) {
    if (std::find(argv + 1, argv + argc, target) == argv + argc) continue;
    fs::use_target(target);
    count_all<float>(fs::Compute::float32);
    count_all<double>(fs::Compute::float64);
  }
}
