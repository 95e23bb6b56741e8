// Adan (Xie et al. 2022, "Adan: Adaptive Nesterov Momentum Algorithm for Faster Optimizing Deep Models").
//
//   e = g + q                                   0 in the first step; q, neg_pre_grad, is minus the gradient of before
//   m <- beta1 * m + (1 - beta1) * g
//   n <- beta2 * n + (1 - beta2) * e
//   v <- beta3 * v + (1 - beta3) * (g + beta2 * e)^2
//   q <- -g
//   p <- (p - lr * (m / c1 + beta2 * n / c2) / (sqrt(v) / sqrt(c3) + eps)) / (1 + lr * weight_decay),  ci = 1 - betai^t
//
// As sail-sg's Adan. Differs in rounding: sqrt(c3) is multiplied out as in adam.h, and the shrinking of the last line
// is part of the direction. With no_prox the caller passes a weight_decay of 0, and decays p before.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Adan {
  static constexpr const char* name = "adan";
  static constexpr auto state = names("exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "beta3", "eps", "weight_decay");
  struct Hyper {
    double lr, beta1, beta2, beta3, eps, weight_decay;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, one_minus_beta3, of_average, of_difference, eps, of_param;
    T first;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    const double decay = h.lr * h.weight_decay, shrunk = 1.0 + decay;
    const double root3 = __builtin_sqrt(1.0 - power(h.beta3, step));
    const double of_average = h.lr * root3 / (1.0 - power(h.beta1, step)) / shrunk;
    const double of_difference = h.lr * h.beta2 * root3 / (1.0 - power(h.beta2, step)) / shrunk;
    return {h.beta1,       1.0 - h.beta1, h.beta2,        1.0 - h.beta2,        h.beta3, 1.0 - h.beta3, of_average,
            of_difference, h.eps * root3, decay / shrunk, step == 1 ? 1.0 : 0.0};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V p, V& m, V& n, V& v, V& q) {
    const V e = u.first != T(0) ? g - g : g + q;  // of a gradient that is infinite NaN, as there
    const V h = g + u.beta2 * e;
    m = u.beta1 * m + u.one_minus_beta1 * g;
    n = u.beta2 * n + u.one_minus_beta2 * e;
    v = u.beta3 * v + u.one_minus_beta3 * (h * h);
    q = -g;
    const V d = (u.of_average * m + u.of_difference * n) / (sqrt(v) + u.eps);
    if (u.of_param != T(0)) return u.of_param * p + d;
    return d;
  }
};

using AdanRules = TypeList<Adan>;

}  // namespace fusedstep
