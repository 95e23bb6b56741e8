// RAdam (Liu et al. 2020, "On the Variance of the Adaptive Learning Rate and Beyond").
//
//   m <- beta1 * m + (1 - beta1) * g
//   v <- beta2 * v + (1 - beta2) * g^2
//   R = 2 / (1 - beta2) - 1,  r = R - 2 * t * beta2^t / c2                                     ci = 1 - betai^t
//   p <- p - lr / c1 * sqrt((r - 4)(r - 2)R / ((R - 4)(R - 2)r)) * m * sqrt(c2) / (sqrt(v) + eps)    if r > 5
//   p <- p - lr / c1 * m                                                                             otherwise
//
// As torch.optim.RAdam: eps is added to the uncorrected root, unlike Adam's. Differs in rounding only.
#pragma once
#include "rule.h"

namespace fusedstep {

struct RAdam {
  static constexpr const char* name = "radam";
  static constexpr auto state = names("exp_avg", "exp_avg_sq");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps");
  struct Hyper {
    double lr, beta1, beta2, eps;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, eps, rectified;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    const double power2 = power(h.beta2, step), correction2 = 1.0 - power2;
    const double most = 2.0 / (1.0 - h.beta2) - 1.0;
    const double length = most - 2.0 * static_cast<double>(step) * power2 / correction2;
    double step_size = h.lr / (1.0 - power(h.beta1, step));
    if (length > 5.0) {
      const double top = (length - 4.0) * (length - 2.0) * most, bottom = (most - 4.0) * (most - 2.0) * length;
      step_size = step_size * __builtin_sqrt(top / bottom) * __builtin_sqrt(correction2);
    }
    return {h.beta1, 1.0 - h.beta1, h.beta2, 1.0 - h.beta2, step_size, h.eps, length > 5.0 ? 1.0 : 0.0};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& v) {
    m = u.beta1 * m + u.one_minus_beta1 * g;
    v = u.beta2 * v + u.one_minus_beta2 * (g * g);
    if (u.rectified != T(0)) return u.step_size * m / (sqrt(v) + u.eps);
    return u.step_size * m;
  }
};

using RAdamRules = TypeList<RAdam>;

}  // namespace fusedstep
