// ADOPT (Taniguchi et al. 2024, "ADOPT: Modified Adam Can Converge with Any beta2 with the Optimal Rate").
//
//   v <- v + g^2                                          first step, which leaves p and m as they are
//
//   x = g / max(sqrt(v), eps)                             later steps, with the v of before
//   x = clamp(x, -c, c),  c = (step - 1)^clip_exp         no clamp if clip_exp is below 0
//   m <- beta1 * m + (1 - beta1) * x
//   v <- beta2 * v + (1 - beta2) * g^2
//   p <- p - lr * m
//
// As iShohei220/adopt, where clip_exp is 0.25. Differs in rounding only.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Adopt {
  static constexpr bool spares_first = true;
  static constexpr const char* name = "adopt";
  static constexpr auto state = names("exp_avg", "exp_avg_sq");
  static constexpr auto hyper = names("lr", "beta1", "beta2", "eps", "clip_exp");
  struct Hyper {
    double lr, beta1, beta2, eps, clip_exp;
  };
  template <class T>
  struct Uniform {
    T lr, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, clip, first;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    const bool clips = step > 1 && h.clip_exp >= 0.0;
    const double clip = clips ? fs_pow(static_cast<double>(step - 1), h.clip_exp) : from_bits(0x7ff0000000000000);
    return {h.lr, h.beta1, 1.0 - h.beta1, h.beta2, 1.0 - h.beta2, h.eps, clip, step == 1 ? 1.0 : 0.0};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m, V& v) {
    if (u.first != T(0)) {
      v = v + g * g;
      return V(T(0));
    }
    const V x = g / max_nan(sqrt(v), V(u.eps));
    const V clipped = max(V(-u.clip), min(V(u.clip), x));  // in this order a NaN stays
    m = u.beta1 * m + u.one_minus_beta1 * clipped;
    v = u.beta2 * v + u.one_minus_beta2 * (g * g);
    return u.lr * m;
  }
};

using AdoptRules = TypeList<Adopt>;

}  // namespace fusedstep
