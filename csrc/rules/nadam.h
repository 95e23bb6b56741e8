// NAdam (Dozat 2016, "Incorporating Nesterov Momentum into Adam").
//
//   mu_t <- beta1 * (1 - 0.5 * 0.96^(t * momentum_decay)),  P <- P * mu_t          P: mu_product, starts at 1
//   m <- beta1 * m + (1 - beta1) * g
//   v <- beta2 * v + (1 - beta2) * g^2
//   p <- p - lr * ((1 - mu_t) / (1 - P) * g + mu_(t+1) / (1 - P * mu_(t+1)) * m) / (sqrt(v) / sqrt(c2) + eps)
//
// with c2 = 1 - beta2^t. As torch.optim.NAdam; differs in rounding: one division per element instead of two, sqrt(c2)
// multiplied out as in adam.h, and 0.96^(t * momentum_decay) as an integer power of fs_pow(0.96, momentum_decay).
// P is used as it is stored, float32 unless torch's default dtype is float64.
#pragma once
#include "rule.h"

namespace fusedstep {

struct NAdam {
  static constexpr const char* name = "nadam";
  static constexpr auto state = names("exp_avg", "exp_avg_sq");
  static constexpr auto scalars = names("mu_product");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps", "momentum_decay");
  struct Hyper {
    double lr, beta1, beta2, eps, momentum_decay;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, of_gradient, of_average, eps;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step, Scalars& s) {
    const double decay = fs_pow(0.96, h.momentum_decay);
    const double mu = h.beta1 * (1.0 - 0.5 * power(decay, step));
    const double next = h.beta1 * (1.0 - 0.5 * power(decay, step + 1));
    const double root2 = __builtin_sqrt(1.0 - power(h.beta2, step));
    s.set(0, s.at[0] * mu);
    const double of_gradient = h.lr * (1.0 - mu) / (1.0 - s.at[0]) * root2;
    const double of_average = h.lr * next / (1.0 - s.at[0] * next) * root2;
    return {h.beta1, 1.0 - h.beta1, h.beta2, 1.0 - h.beta2, of_gradient, of_average, h.eps * root2};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& v) {
    m = u.beta1 * m + u.one_minus_beta1 * g;
    v = u.beta2 * v + u.one_minus_beta2 * (g * g);
    return (u.of_gradient * g + u.of_average * m) / (sqrt(v) + u.eps);
  }
};

using NAdamRules = TypeList<NAdam>;

}  // namespace fusedstep
