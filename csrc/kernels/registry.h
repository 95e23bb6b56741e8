// The rules as data, for callers that know a rule by its name: built from the type list in rules/all.h.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "prepare.h"

namespace fusedstep {

struct RuleInfo {
  std::string name;
  std::vector<std::string> state, hyper, scalars, group_scalars;
  int sums;  // over a tensor: more than 0, and a step is two passes (cpu/run.h)
};

// In the order of AllRules: the index is that of TargetTable::step.
const std::vector<RuleInfo>& all_rules();

// The variant of a family that has exactly these state arrays, or -1.
int find_rule(const std::string& name, const std::vector<std::string>& state);

// prepare_any on the host: fills StepUniform<Rule, T> at `out` (kMaxUniformBytes).
void prepare(int rule, DType dtype, const StepOptions& options, double norm, std::int64_t step, void* out,
             Scalars* scalars = nullptr, const GroupScalars* group = nullptr);

// advance_any on the host: of a group, once a step, before its tensors are prepared.
void advance(int rule, const StepOptions& options, GroupScalars& group);

// scale_any on the host: of a rule with sums, between its passes.
void scale(int rule, DType dtype, const StepOptions& options, std::int64_t step, const double* sums, std::int64_t numel,
           void* out);

}  // namespace fusedstep
