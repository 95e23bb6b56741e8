// The arrays and constants that a kernel is measured on, for the programs here that measure without Python.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../csrc/kernels/registry.h"

namespace fusedstep {

inline constexpr const char* kNormNames[kNorms] = {"norm 1", "norm 2", "norm inf"};

// The streams of one rule, n elements each: gradients that alternate in sign; no value becomes subnormal.
template <class T>
struct RuleArrays {
  std::string name;  // of the variant: the rule's and those of its state arrays
  std::vector<std::vector<T>> arrays;
  std::vector<void*> streams;
  UniformBytes uniform;

  RuleArrays(std::size_t rule, Compute compute, std::int64_t n) {
    const RuleInfo& info = all_rules()[rule];
    name = info.name;
    for (const std::string& s : info.state) name += "-" + s;
    arrays.assign(2 + info.state.size(), std::vector<T>(n, T(1)));
    for (std::vector<T>& a : arrays) streams.push_back(a.data());
    for (std::int64_t i = 0; i < n; ++i) arrays[1][i] = T(i % 2 ? 1e-3 : -1e-3);
    StepOptions options{{}, 0.0, 1e30, -1.0, 1.0, false, false};
    for (std::size_t k = 0; k < info.hyper.size(); ++k) {
      options.hyper[k] = info.hyper[k] == "lr" ? 1e-6 : info.hyper[k] == "eps" ? 1e-8 : 0.9;
    }
    Scalars scalars{};
    for (double& x : scalars.at) x = 0.5;
    prepare(static_cast<int>(rule), compute, options, 0.0, 10, uniform.bytes, &scalars);
  }
  RuleArrays(const RuleArrays&) = delete;
  RuleArrays& operator=(const RuleArrays&) = delete;
};

}  // namespace fusedstep
