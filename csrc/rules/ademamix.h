// AdEMAMix (Pagliardini, Ablin & Grangier 2024, "The AdEMAMix Optimizer: Better, Faster, Older").
//
//   AL = alpha * min(t / t_alpha, 1)                                               alpha if t_alpha is 0
//   B3 = min(beta3, exp(1 / ((1 - T) / log(beta1) + T / log(beta3)))),  T = t / t_beta3    beta3 from T = 1 on
//   m <- beta1 * m + (1 - beta1) * g
//   n <- B3 * n + (1 - B3) * g
//   v <- beta2 * v + (1 - beta2) * g^2
//   p <- p - lr * (m / c1 + AL * n) / (sqrt(v) / sqrt(c2) + eps),   ci = 1 - betai^t
//
// As bitsandbytes' AdEMAMix, decay before the step as on its CPU. Differs in rounding: sqrt(c2) is multiplied out as in
// adam.h, and exp and log are those of power.h. A beta1 of 0 has the limit of the formula, beta3^(1 / T), and is an
// error there.
#pragma once
#include "rule.h"

namespace fusedstep {

struct AdEMAMix {
  static constexpr const char* name = "ademamix";
  static constexpr auto state = names("exp_avg", "exp_avg_slow", "exp_avg_sq");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "beta3", "alpha", "t_alpha", "t_beta3", "eps");
  struct Hyper {
    double lr, beta1, beta2, beta3, alpha, t_alpha, t_beta3, eps;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, slow, one_minus_slow, beta2, one_minus_beta2, of_average, of_slow, eps;
  };
  FS_INLINE static double slow_factor(const Hyper& h, double t) {
    if (t >= h.t_beta3 || h.beta3 == 0.0) return h.beta3;
    const double part = t / h.t_beta3;
    const double warm = fs_exp(1.0 / ((1.0 - part) / fs_log(h.beta1) + part / fs_log(h.beta3)));
    return warm < h.beta3 ? warm : h.beta3;
  }
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    const double t = static_cast<double>(step), slow = slow_factor(h, t);
    const double alpha = t < h.t_alpha ? h.alpha * (t / h.t_alpha) : h.alpha;
    const double root2 = __builtin_sqrt(1.0 - power(h.beta2, step));
    const double of_average = h.lr * root2 / (1.0 - power(h.beta1, step));
    return {h.beta1,    1.0 - h.beta1,        slow,         1.0 - slow, h.beta2, 1.0 - h.beta2,
            of_average, h.lr * root2 * alpha, h.eps * root2};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& n, V& v) {
    m = u.beta1 * m + u.one_minus_beta1 * g;
    n = u.slow * n + u.one_minus_slow * g;
    v = u.beta2 * v + u.one_minus_beta2 * (g * g);
    return (u.of_average * m + u.of_slow * n) / (sqrt(v) + u.eps);
  }
};

using AdEMAMixRules = TypeList<AdEMAMix>;

}  // namespace fusedstep
