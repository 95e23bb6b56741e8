#include "registry.h"

#include <cstring>

namespace fusedstep {
namespace {

// Uniforms hold nothing but numbers of one type, so one is rounded to another as an array.
template <class To, class From>
void round_each(const From* from, To* to) {
  static_assert(sizeof(To) % sizeof(float) == 0);
  constexpr std::size_t n = sizeof(From) / sizeof(double);
  double wide[n];
  std::memcpy(wide, from, sizeof wide);
  float narrow[n];
  for (std::size_t k = 0; k < n; ++k) narrow[k] = static_cast<float>(wide[k]);
  static_assert(sizeof narrow == sizeof(To));
  std::memcpy(to, narrow, sizeof narrow);
}

template <class Rule>
void prepare(DType dtype, const Common<double>& common, const double* hyper, std::int64_t step, void* out) {
  using Wide = StepUniform<Rule, double>;
  using Narrow = StepUniform<Rule, float>;
  static_assert(sizeof(Wide) <= kMaxUniformBytes);
  typename Rule::Hyper h;
  if constexpr (Rule::hyper.size > 0) {
    static_assert(sizeof h == Rule::hyper.size * sizeof(double) && Rule::hyper.size <= kMaxHyper);
    std::memcpy(&h, hyper, sizeof h);
  }
  const Wide wide{common, Rule::prepare(h, step)};
  if (dtype == DType::float64) {
    std::memcpy(out, &wide, sizeof wide);
    return;
  }
  Narrow narrow;
  round_each(&wide.common, &narrow.common);
  if constexpr (Rule::hyper.size > 0) round_each(&wide.rule, &narrow.rule);
  std::memcpy(out, &narrow, sizeof narrow);
}

template <int N>
std::vector<std::string> strings(const Names<N>& names) {
  return {names.at, names.at + N};
}

template <class... Rule>
std::vector<RuleInfo> list(RuleList<Rule...>) {
  return {{Rule::name, strings(Rule::state), strings(Rule::hyper), prepare<Rule>}...};
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
