// Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", algorithm 2).
//
//   p <- p - lr * sign(beta1 * m + (1 - beta1) * g)
//   m <- beta2 * m + (1 - beta2) * g
//
// Both use the m of before. As google/automl and lion-pytorch. sign(0) is 0, so that a weight without gradient stays,
// and sign(NaN) is NaN, where torch.sign gives 0 and the weight would be frozen in silence.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Lion {
  static constexpr const char* name = "lion";
  static constexpr auto state = names("exp_avg");
  static constexpr auto hyper = names("lr", "beta1", "beta2");
  struct Hyper {
    double lr, beta1, beta2;
  };
  template <class T>
  struct Uniform {
    T lr, beta1, one_minus_beta1, beta2, one_minus_beta2;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t) {
    return {h.lr, h.beta1, 1.0 - h.beta1, h.beta2, 1.0 - h.beta2};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& m) {
    const V d = u.lr * sign(u.beta1 * m + u.one_minus_beta1 * g);
    m = u.beta2 * m + u.one_minus_beta2 * g;
    return d;
  }
};

using LionRules = TypeList<Lion>;

}  // namespace fusedstep
