// Yogi (Zaheer et al. 2018, "Adaptive Methods for Nonconvex Optimization").
//
//   m <- beta1 * m + (1 - beta1) * g
//   v <- v - (1 - beta2) * sign(v - g^2) * g^2
//   p <- p - lr * m / c1 / (sqrt(v) / sqrt(c2) + eps),   ci = 1 - betai^step
//
// As torch_optimizer's Yogi, both averages started by the caller at initial_accumulator. Differs in rounding only:
// sqrt(c2) is multiplied out as in adam.h.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Yogi {
  static constexpr const char* name = "yogi";
  static constexpr auto state = names("exp_avg", "exp_avg_sq");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps");
  struct Hyper {
    double lr, beta1, beta2, eps;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, one_minus_beta2, step_size, eps;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    const double correction1 = 1.0 - power(h.beta1, step);
    const double root2 = __builtin_sqrt(1.0 - power(h.beta2, step));
    return {h.beta1, 1.0 - h.beta1, 1.0 - h.beta2, h.lr * root2 / correction1, h.eps * root2};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& v) {
    const V square = g * g;
    m = u.beta1 * m + u.one_minus_beta1 * g;
    v = v - u.one_minus_beta2 * (sign(v - square) * square);
    return u.step_size * m / (sqrt(v) + u.eps);
  }
};

using YogiRules = TypeList<Yogi>;

}  // namespace fusedstep
