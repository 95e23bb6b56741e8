// One element, or one lane of elements, of a step, the same on every target: the common part, then the rule.
#pragma once
#include <utility>

#include "table.h"

namespace fusedstep {
namespace {

template <class Rule>
inline constexpr bool assigns = requires { requires Rule::assigns; };

template <class Rule, class T, class V, std::size_t... S>
FS_INLINE void update_one(const StepUniform<Rule, T>& u, V g, V& p, V* state, std::index_sequence<S...>) {
  g = g * u.common.grad_mul;
  g = max(V(-u.common.clip_value), min(V(u.common.clip_value), g));  // in this order a NaN stays
  if (u.common.weight_decay != T(0)) g = g + u.common.weight_decay * p;
  p = u.common.param_mul * p;
  const V d = Rule::update(u.rule, g, p, state[S]...);
  if constexpr (assigns<Rule>) {
    p = d;
  } else {
    p = p - d;
  }
}

}  // namespace
}  // namespace fusedstep
