// The contract of a rule: what every header in rules/ provides, and the few names it may use.
//
//   struct Name {
//     static constexpr const char* name;        family, as in fusedstep.functional
//     static constexpr auto state = names(...); state arrays, torch's keys; they pick the variant of a family
//     static constexpr auto hyper = names(...); fields of Hyper, in order: none, or "lr" and others
//     struct Hyper { double ...; };             what the caller passes, doubles only
//     template <class T> struct Uniform { T ...; };  constant during one step, Ts only
//     FS_INLINE static Uniform<double> prepare(const Hyper&, std::int64_t step);   float64, once per step
//     template <class V, class T>
//     FS_INLINE static V update(const Uniform<T>& u, V g, V p, V& state...);
//   };
//
// It may also have:
//
//     static constexpr bool assigns = true;        what update() returns is the new p
//     static constexpr bool first_differs = true;  the first step does not read the state, as others do
//     static constexpr bool spares_first = true;   decoupled decay is left out of the first step
//     static constexpr auto scalars = names(...);  state of one number per tensor: then prepare(Hyper, step, Scalars&)
//     static constexpr auto group_scalars = names(...);  numbers that the tensors of a group share, moved on once a
//     step
//         by static void advance(const Hyper&, GroupScalars&), before prepare(..., const GroupScalars&)
//     static constexpr Sum sums[] = {...};         sums over the tensor, on which the direction depends
//
// A rule with sums has, in place of update(), what makes two passes over the elements:
//
//     template <class T> struct Scale { T ...; };
//     static void move(const Uniform<T>& u, V g, V p, V& state...);           first the states move,
//     static void measure(const Uniform<T>& u, V* x, V g, V p, V state...);   then x[k] is what is summed,
//     static Scale<double> scale(const Hyper&, std::int64_t step, const double* sums, std::int64_t numel);
//     static V apply(const Uniform<T>& u, const Scale<T>& s, V g, V p, V state...);   and this is d
//
// measure() and apply() see the states as they are stored. scale() runs once per tensor, in float64, and its result is
// rounded once. The sums have the fixed shape of the norms (kernels/table.h).
//
// prepare() runs in float64 and its result is rounded once to the compute type. update() moves the states and returns
// the direction d; the loop does p <- p - d. It sees lanes only: the operations of vec/scalar.h and an `if` on a
// uniform; it knows no pointer, loop, dtype or device. The gradient it receives has already been unscaled, clipped,
// negated for maximize and given its L2 term, and p its decoupled decay (kernels/update.h).
#pragma once
#include "../base.h"
#include "power.h"

namespace fusedstep {

template <int N>
struct Names {
  const char* at[N > 0 ? N : 1];
  static constexpr int size = N;
};

template <class... S>
constexpr Names<sizeof...(S)> names(S... s) {
  if constexpr (sizeof...(S) == 0) {
    return {{nullptr}};
  } else {
    return {{s...}};
  }
}

// States of one number: read before prepare() and written after it, as float32 or float64.
template <int N>
struct ScalarValues {
  double at[N];
  bool wide[N];

  // What this step computes with is what the next one will read.
  FS_INLINE void set(int k, double x) { at[k] = wide[k] ? x : static_cast<double>(static_cast<float>(x)); }
};

using Scalars = ScalarValues<kMaxScalars>;            // of a tensor
using GroupScalars = ScalarValues<kMaxGroupScalars>;  // of a group

template <class Rule>
constexpr auto scalars_of() {
  if constexpr (requires { Rule::scalars; }) {
    static_assert(Rule::scalars.size <= kMaxScalars);
    return Rule::scalars;
  } else {
    return names();
  }
}

template <class Rule>
constexpr auto group_scalars_of() {
  if constexpr (requires { Rule::group_scalars; }) {
    static_assert(Rule::group_scalars.size <= kMaxGroupScalars);
    return Rule::group_scalars;
  } else {
    return names();
  }
}

template <class Rule>
inline constexpr bool has_scalars = decltype(scalars_of<Rule>())::size > 0;
template <class Rule>
inline constexpr bool has_group_scalars = decltype(group_scalars_of<Rule>())::size > 0;

template <class Rule>
inline constexpr bool first_differs = requires { requires Rule::first_differs; };

template <class Rule>
inline constexpr bool spares_first = requires { requires Rule::spares_first; };

// What happens to every gradient and parameter before its rule. With the neutral values 1, inf, 0, 1 it is the
// identity.
template <class T>
struct Common {
  T grad_mul;      // clip coefficient / grad_scale, negative to maximize: one rounding for all three
  T clip_value;    // bound on |gradient| after the multiplication
  T weight_decay;  // L2: g + weight_decay * p
  T param_mul;     // decoupled decay: 1 - lr * weight_decay
};

// What is summed: the lanes of measure() or their squares.
enum class Sum : std::uint8_t { values, squares };

template <class Rule>
inline constexpr int sum_count = 0;
template <class Rule>
  requires requires { Rule::sums; }
inline constexpr int sum_count<Rule> = sizeof Rule::sums / sizeof(Sum);

template <class Rule, class T>
struct StepUniform {
  Common<T> common;
  typename Rule::template Uniform<T> rule;
};

template <class Rule, class T>
  requires(sum_count<Rule> > 0)
struct StepUniform<Rule, T> {
  Common<T> common;
  typename Rule::template Uniform<T> rule;
  typename Rule::template Scale<T> scale;  // known after the first pass
};

// -1, 0 or 1. A zero keeps its sign and a NaN stays NaN: a weight whose momentum is lost is not frozen in silence, as
// it is by torch.sign, which gives 0.
template <class V>
FS_INLINE V sign(V x) {
  using T = typename V::value_type;
  return select(x > V(T(0)), V(T(1)), select(V(T(0)) > x, V(T(-1)), x));
}

}  // namespace fusedstep
