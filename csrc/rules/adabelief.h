// AdaBelief (Zhuang et al. 2020, "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients").
//
//   m <- beta1 * m + (1 - beta1) * g
//   v <- beta2 * v + (1 - beta2) * (g - m)^2 + eps          with the new m
//   x <- max(x, v)                                          amsgrad
//   p <- p - lr * m / c1 / (sqrt(v or x) / sqrt(c2) + eps)              without rectify; ci = 1 - betai^step
//   p <- p - lr * R * sqrt(c2) * m / c1 / (sqrt(v) + eps)               rectify, N >= 5
//   p <- p - lr * m / c1                                                rectify, N < 5 and degenerated_to_sgd
//
// where L = 2 / (1 - beta2) - 1, N = L - 2 * step * beta2^step / c2, R^2 = (N-4) (N-2) L / ((L-4) (L-2) N). Without
// degenerated_to_sgd p stays while N < 5. As adabelief-pytorch, which adds eps into the stored v each step, and which
// keeps but does not use x when it rectifies. Differs in rounding only: sqrt(c2) is multiplied out as in adam.h. With
// fixed_decay the caller passes weight_decay: p shrinks by that and not by lr times it.
#pragma once
#include "rule.h"

namespace fusedstep {

template <bool kAmsgrad>
struct AdaBelief {
  static constexpr const char* name = "adabelief";
  static constexpr auto state = [] {
    if constexpr (kAmsgrad) {
      return names("exp_avg", "exp_avg_var", "max_exp_avg_var");
    } else {
      return names("exp_avg", "exp_avg_var");
    }
  }();
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps", "rectify", "degenerated_to_sgd", "weight_decay");
  struct Hyper {
    double lr, beta1, beta2, eps, rectify, degenerated_to_sgd, weight_decay;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, added, step_size, eps, of_param, divides, rectify;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    const double power2 = power(h.beta2, step), c2 = 1.0 - power2, step_size = h.lr / (1.0 - power(h.beta1, step));
    Uniform<double> u{h.beta1,   1.0 - h.beta1, h.beta2,        1.0 - h.beta2, h.eps,
                      step_size, h.eps,         h.weight_decay, 1.0,           h.rectify != 0.0 ? 1.0 : 0.0};
    if (h.rectify == 0.0) {
      u.step_size = step_size * __builtin_sqrt(c2);
      u.eps = h.eps * __builtin_sqrt(c2);
      return u;
    }
    const double l = 2.0 / (1.0 - h.beta2) - 1.0, n = l - 2.0 * static_cast<double>(step) * power2 / c2;
    if (n >= 5.0) {
      u.step_size = step_size * __builtin_sqrt(c2 * (n - 4.0) / (l - 4.0) * (n - 2.0) / n * l / (l - 2.0));
    } else {
      u.step_size = h.degenerated_to_sgd != 0.0 ? step_size : 0.0;
      u.divides = 0.0;
    }
    return u;
  }

  template <class V, class T, class... Largest>
  FS_INLINE static V update(const Uniform<T>& u, V g, V p, V& m, V& v, Largest&... x) {
    m = u.beta1 * m + u.one_minus_beta1 * g;
    const V surprise = g - m;
    v = u.beta2 * v + u.one_minus_beta2 * (surprise * surprise) + u.added;
    ((x = max(x, v)), ...);
    V d = u.step_size * m;
    if (u.divides != T(0)) {
      V square = v;
      if (u.rectify == T(0)) ((square = x), ...);
      d = d / (sqrt(square) + u.eps);
    }
    if (u.of_param != T(0)) d = u.of_param * p + d;
    return d;
  }
};

using AdaBeliefRules = TypeList<AdaBelief<false>, AdaBelief<true>>;

}  // namespace fusedstep
