// LaProp (Ziyin, Wang & Ueda 2020, "LaProp: Separating Momentum and Adaptivity in Adam").
//
//   a <- beta1 * a + (1 - beta1) * lr,   b <- beta2 * b + (1 - beta2)         a, b: exp_avg_lr_1, exp_avg_lr_2, from 0
//   v <- beta2 * v + (1 - beta2) * g^2
//   m <- beta1 * m + (1 - beta1) * lr * g / (sqrt(v / b) + eps)
//   p <- (p - lr / a * m) * (1 - lr * weight_decay)                           no step while a is 0
//
// As timm's LaProp: lr is inside m, so that a rate that changes acts on the gradients of its own steps, and decay comes
// last. Differs in rounding: sqrt(b) is multiplied out, and the decay is part of the direction. a and b are used as
// they are stored, float32 unless torch's default dtype is float64.
#pragma once
#include "rule.h"

namespace fusedstep {

struct LaProp {
  static constexpr const char* name = "laprop";
  static constexpr auto state = names("exp_avg", "exp_avg_sq");
  static constexpr auto scalars = names("exp_avg_lr_1", "exp_avg_lr_2");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps", "weight_decay");
  struct Hyper {
    double lr, beta1, beta2, eps, weight_decay;
  };
  template <class T>
  struct Uniform {
    T beta1, of_gradient, beta2, one_minus_beta2, eps, of_average, of_param;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t, Scalars& s) {
    s.set(0, h.beta1 * s.at[0] + (1.0 - h.beta1) * h.lr);
    s.set(1, h.beta2 * s.at[1] + (1.0 - h.beta2));
    const double root = __builtin_sqrt(s.at[1]), decay = h.lr * h.weight_decay;
    const double of_average = s.at[0] != 0.0 ? h.lr / s.at[0] * (1.0 - decay) : 0.0;
    return {h.beta1, h.lr * (1.0 - h.beta1) * root, h.beta2, 1.0 - h.beta2, h.eps * root, of_average, decay};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V p, V& m, V& v) {
    v = u.beta2 * v + u.one_minus_beta2 * (g * g);
    m = u.beta1 * m + u.of_gradient * g / (sqrt(v) + u.eps);
    const V d = u.of_average * m;
    if (u.of_param != T(0)) return u.of_param * p + d;
    return d;
  }
};

using LaPropRules = TypeList<LaProp>;

}  // namespace fusedstep
