#include "registry.h"

namespace fusedstep {
namespace {

template <int N>
std::vector<std::string> strings(const Names<N>& names) {
  return {names.at, names.at + N};
}

template <class... Rule>
std::vector<RuleInfo> list(TypeList<Rule...>) {
  return {{Rule::name, strings(Rule::state), strings(Rule::hyper), strings(scalars_of<Rule>()),
           strings(group_scalars_of<Rule>()), sum_count<Rule>, first_differs<Rule>}...};
}

}  // namespace

const std::vector<RuleInfo>& all_rules() {
  static const std::vector<RuleInfo> rules = list(AllRules{});
  return rules;
}

int find_rule(const std::string& name, const std::vector<std::string>& state) {
  const auto& rules = all_rules();
  for (std::size_t k = 0; k < rules.size(); ++k) {
    if (rules[k].name == name && rules[k].state == state) return static_cast<int>(k);
  }
  return -1;
}

}  // namespace fusedstep
