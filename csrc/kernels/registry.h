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
  bool first_differs;
};

// In the order of AllRules: the index is that of TargetTable::step.
const std::vector<RuleInfo>& all_rules();

// The variant of a family that has exactly these state arrays, or -1.
int find_rule(const std::string& name, const std::vector<std::string>& state);

}  // namespace fusedstep
