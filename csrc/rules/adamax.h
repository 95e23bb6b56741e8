// Adamax (Kingma & Ba 2015, algorithm 2).
//
//   m <- beta1 * m + (1 - beta1) * g
//   u <- max(beta2 * u, |g| + eps)
//   p <- p - lr / (1 - beta1^step) * m / u
//
// As torch.optim.Adamax: eps inside the maximum, which is NaN if either is. Differs in rounding only.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Adamax {
  static constexpr const char* name = "adamax";
  static constexpr auto state = names("exp_avg", "exp_inf");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps");
  struct Hyper {
    double lr, beta1, beta2, eps;
  };
  template <class T>
  struct Uniform {
    T beta1, one_minus_beta1, beta2, step_size, eps;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    return {h.beta1, 1.0 - h.beta1, h.beta2, h.lr / (1.0 - power(h.beta1, step)), h.eps};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& largest) {
    m = u.beta1 * m + u.one_minus_beta1 * g;
    largest = max_nan(u.beta2 * largest, abs(g) + u.eps);
    return u.step_size * m / largest;
  }
};

using AdamaxRules = TypeList<Adamax>;

}  // namespace fusedstep
