// What is constant during a step, from the caller's options: computed in float64, in this one place on every device,
// and rounded once to the compute type.
#pragma once
#include <cstring>
#include <string_view>

#include "ride.h"

namespace fusedstep {

inline constexpr int kMaxHyper = 12;

// The options of a group of tensors, as the caller gave them.
struct StepOptions {
  double hyper[kMaxHyper];                                // the rule's, in the order of its header: lr first
  double weight_decay, clip_value, max_norm, grad_scale;  // max_norm < 0: the norm is not limited
  bool decoupled, maximize;
  std::uint64_t seed = 0;  // of stochastic rounding
  RideOptions ride = {};
};

namespace {

// min(1, max_norm / (norm + 1e-6)), NaN if the norm is: torch.nn.utils.clip_grad_norm_ in float64.
FS_INLINE double clip_coefficient(double norm, double max_norm) {
  const double coefficient = max_norm / (norm + 1e-6);
  return coefficient > 1.0 ? 1.0 : coefficient;
}

// What decoupled decay takes of a parameter.
FS_INLINE double decay_of(const StepOptions& o) {
  const double lr = o.hyper[0];
  switch (o.ride.decay_mode) {
    case DecayMode::fixed:
      return o.weight_decay;
    case DecayMode::relative:
      return lr / o.ride.decay_lr * o.weight_decay;
    case DecayMode::squared:
      return lr * lr / o.ride.decay_lr * o.weight_decay;
    default:
      return lr * o.weight_decay;
  }
}

// `norm` is that of the unscaled gradients; it counts where the options have a max_norm.
FS_INLINE Common<double> prepare_common(const StepOptions& o, double norm) {
  double mul = o.max_norm >= 0.0 ? clip_coefficient(norm, o.max_norm) : 1.0;
  mul /= o.grad_scale;
  if (o.maximize) mul = -mul;
  if (o.decoupled) return {mul, o.clip_value, 0.0, o.ride.cautious_decay ? 1.0 : 1.0 - decay_of(o)};
  return {mul, o.clip_value, o.weight_decay, 1.0};
}

FS_INLINE RideNumbers prepare_ride(const StepOptions& o) {
  RideNumbers out{o.hyper[0] * o.ride.l1, o.ride.cautious_decay ? decay_of(o) : 0.0,
                  o.ride.weight,          {},
                  o.ride.cautious,        o.ride.cautious_decay,
                  o.ride.nonzero};
  for (int k = 0; k < kMaxState; ++k) out.start[k] = o.ride.start[k];
  return out;
}

// Uniforms hold nothing but numbers of one type, so one is rounded to another as an array.
template <class To, class From>
FS_INLINE void round_each(const From* from, To* to) {
  constexpr std::size_t n = sizeof(From) / sizeof(double);
  double wide[n];
  std::memcpy(wide, from, sizeof wide);
  float narrow[n];
  for (std::size_t k = 0; k < n; ++k) narrow[k] = static_cast<float>(wide[k]);
  static_assert(sizeof narrow == sizeof(To));
  std::memcpy(to, narrow, sizeof narrow);
}

template <class Rule>
inline constexpr bool lr_is_first = std::string_view(Rule::hyper.at[0]) == "lr";

template <class Rule>
FS_INLINE typename Rule::Hyper hyper_of(const StepOptions& options) {
  typename Rule::Hyper hyper{};
  if constexpr (Rule::hyper.size > 0) {
    static_assert(lr_is_first<Rule>, "what decoupled decay is multiplied by comes first");
    static_assert(sizeof hyper == Rule::hyper.size * sizeof(double) && Rule::hyper.size <= kMaxHyper);
    std::memcpy(&hyper, options.hyper, sizeof hyper);
  }
  return hyper;
}

template <class Rule>
FS_INLINE auto prepare_own(const typename Rule::Hyper& hyper, std::int64_t step, [[maybe_unused]] Scalars* scalars,
                           [[maybe_unused]] const GroupScalars* group) {
  if constexpr (has_scalars<Rule> && has_group_scalars<Rule>) {
    return Rule::prepare(hyper, step, *scalars, *group);
  } else if constexpr (has_scalars<Rule>) {
    return Rule::prepare(hyper, step, *scalars);
  } else if constexpr (has_group_scalars<Rule>) {
    return Rule::prepare(hyper, step, *group);
  } else {
    return Rule::prepare(hyper, step);
  }
}

template <class Rule>
FS_INLINE void prepare_rule(Compute compute, const StepOptions& options, double norm, std::int64_t step, void* out,
                            Scalars* scalars, const GroupScalars* group) {
  using Wide = StepUniform<Rule, double>;
  using Narrow = StepUniform<Rule, float>;
  static_assert(sizeof(Wide) <= kMaxUniformBytes);
  Wide wide{};
  wide.common = prepare_common(options, norm);
  if (spares_first<Rule> && step == 1) wide.common.param_mul = 1.0;
  wide.rule = prepare_own<Rule>(hyper_of<Rule>(options), step, scalars, group);
  if (compute == Compute::float64) {
    std::memcpy(out, &wide, sizeof wide);
    return;
  }
  Narrow narrow{};
  round_each(&wide.common, &narrow.common);
  if constexpr (Rule::hyper.size > 0) round_each(&wide.rule, &narrow.rule);
  std::memcpy(out, &narrow, sizeof narrow);
}

template <class Rule>
struct Of {
  using type = Rule;
};

// f(Of<Rule>) for the rule of that index.
template <class F, class Rule, class... Rest>
FS_INLINE void with_rule(TypeList<Rule, Rest...>, int rule, const F& f) {
  if (rule == 0) return f(Of<Rule>{});
  if constexpr (sizeof...(Rest) > 0) with_rule(TypeList<Rest...>{}, rule - 1, f);
}

// Fills `out` for the rule of that index in AllRules. `scalars` are those of the tensor, which move one step on,
// `group` those of its group, which have; null for a rule that has none.
FS_INLINE void prepare(int rule, Compute compute, const StepOptions& options, double norm, std::int64_t step,
                       UniformBytes& out, Scalars* scalars = nullptr, const GroupScalars* group = nullptr) {
  with_rule(AllRules{}, rule, [&](auto of) {
    using Rule = typename decltype(of)::type;
    prepare_rule<Rule>(compute, options, norm, step, out.bytes, scalars, group);
    out.ride = prepare_ride(options);
    if (spares_first<Rule> && step == 1) out.ride.decay = 0.0;
  });
  out.step_key = step_key(options.seed, step);
}

// Moves the scalars of a group one step on; of a rule without any nothing.
FS_INLINE void advance(int rule, const StepOptions& options, GroupScalars& group) {
  with_rule(AllRules{}, rule, [&](auto of) {
    using Rule = typename decltype(of)::type;
    if constexpr (has_group_scalars<Rule>) Rule::advance(hyper_of<Rule>(options), group);
  });
}

// Fills the scale of the StepUniform<Rule, T> at `out`, which prepare has prepared, from the sums of the first
// pass; of a rule without sums nothing.
FS_INLINE void scale(int rule, Compute compute, const StepOptions& options, std::int64_t step, const double* sums,
                     std::int64_t numel, void* out) {
  with_rule(AllRules{}, rule, [&](auto of) {
    using Rule = typename decltype(of)::type;
    if constexpr (sum_count<Rule> > 0) {
      const auto scale = Rule::scale(hyper_of<Rule>(options), step, sums, numel);
      if (compute == Compute::float64) {
        static_cast<StepUniform<Rule, double>*>(out)->scale = scale;
      } else {
        round_each(&scale, &static_cast<StepUniform<Rule, float>*>(out)->scale);
      }
    }
  });
}

}  // namespace
}  // namespace fusedstep
