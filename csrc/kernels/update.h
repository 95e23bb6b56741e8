// One element, or one lane of elements, of a step, the same on every target: the common part, then the rule.
#pragma once
#include <utility>

#include "table.h"

namespace fusedstep {
namespace {

template <class Rule>
inline constexpr bool assigns = requires { requires Rule::assigns; };

// Unscaled, clipped, negated.
template <class T, class V>
FS_INLINE V limited(const Common<T>& u, V g) {
  g = g * u.grad_mul;
  return max(V(-u.clip_value), min(V(u.clip_value), g));  // in this order a NaN stays
}

template <class T, class V>
FS_INLINE void decay(const Common<T>& u, V& g, V& p) {
  if (u.weight_decay != T(0)) g = g + u.weight_decay * p;
  p = u.param_mul * p;
}

// What every rule's gradient and parameter have gone through.
template <class T, class V>
FS_INLINE void before(const Common<T>& u, V& g, V& p) {
  g = limited(u, g);
  decay(u, g, p);
}

template <class Rule, class T, class V, std::size_t... S>
FS_INLINE V direction(const StepUniform<Rule, T>& u, V g, V p, V* state, std::index_sequence<S...>) {
  if constexpr (sum_count<Rule> > 0) {
    return Rule::apply(u.rule, u.scale, g, p, state[S]...);
  } else {
    return Rule::update(u.rule, g, p, state[S]...);
  }
}

template <class Rule, class T, class V, std::size_t... S>
FS_INLINE void update_one(const StepUniform<Rule, T>& u, V g, V& p, V* state, std::index_sequence<S...> states) {
  before(u.common, g, p);
  const V d = direction<Rule>(u, g, p, state, states);
  if constexpr (assigns<Rule>) {
    p = d;
  } else {
    p = p - d;
  }
}

}  // namespace
}  // namespace fusedstep
