// Adam (Kingma & Ba 2015, algorithm 1 in the form of section 2's end), AMSGrad (Reddi, Kale & Kumar 2018).
// AdamW (Loshchilov & Hutter 2019) is this rule with decoupled decay, which the step loop applies before it.
//
//   m <- beta1 * m + (1 - beta1) * g
//   v <- beta2 * v + (1 - beta2) * g^2
//   x <- max(x, v)                                   amsgrad, on the raw second moment
//   p <- p - lr * sqrt(c2)/c1 * m / (sqrt(v or x) + eps * sqrt(c2)),   ci = 1 - betai^step
//
// The last line is torch's lr/c1 * m / (sqrt(v)/sqrt(c2) + eps) with sqrt(c2) multiplied out: one division fewer per
// element. As torch.optim.Adam; differs in rounding, and m is not written as lerp, so that beta1 = 0 is exact.
#pragma once
#include "rule.h"

namespace fusedstep {

template <bool kAmsgrad>
struct Adam {
  static constexpr const char* name = "adam";
  static constexpr auto state = [] {
    if constexpr (kAmsgrad) {
      return names("exp_avg", "exp_avg_sq", "max_exp_avg_sq");
    } else {
      return names("exp_avg", "exp_avg_sq");
    }
  }();
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps");
  struct Hyper {
    double lr, beta1, beta2, eps;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, beta2, one_minus_beta2, step_size, eps;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    const double correction1 = 1.0 - power(h.beta1, step);
    const double root2 = __builtin_sqrt(1.0 - power(h.beta2, step));
    return {h.beta1, 1.0 - h.beta1, h.beta2, 1.0 - h.beta2, h.lr * root2 / correction1, h.eps * root2};
  }

  template <class V, class T>
  FS_INLINE static void average(const Uniform<T>& u, V g, V& m, V& v) {
    m = u.beta1 * m + u.one_minus_beta1 * g;
    v = u.beta2 * v + u.one_minus_beta2 * (g * g);
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& v) {
    average(u, g, m, v);
    return u.step_size * m / (sqrt(v) + u.eps);
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& v, V& x) {
    average(u, g, m, v);
    x = max(x, v);
    return u.step_size * m / (sqrt(x) + u.eps);
  }
};

using AdamRules = TypeList<Adam<false>, Adam<true>>;

}  // namespace fusedstep
