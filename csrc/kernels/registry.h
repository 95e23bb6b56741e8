// The rules as data, for callers that know a rule by its name: built from the type list in rules/all.h.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "table.h"

namespace fusedstep {

inline constexpr int kMaxHyper = 8;
inline constexpr int kMaxUniformBytes = 128;

// A StepUniform<Rule, T> of any rule and type.
struct alignas(16) UniformBytes {
  std::byte bytes[kMaxUniformBytes];
};

struct RuleInfo {
  std::string name;
  std::vector<std::string> state, hyper;
  // Fills StepUniform<Rule, T> at `out` (kMaxUniformBytes): float64 arithmetic, one rounding to T.
  void (*prepare)(DType, const Common<double>&, const double* hyper, std::int64_t step, void* out);
};

// In the order of AllRules: the index is that of TargetTable::step.
const std::vector<RuleInfo>& all_rules();

// The variant of a family that has exactly these state arrays, or -1.
int find_rule(const std::string& name, const std::vector<std::string>& state);

}  // namespace fusedstep
