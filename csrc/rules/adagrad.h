// Adagrad (Duchi, Hazan & Singer 2011).
//
//   s <- s + g^2
//   p <- p - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps)
//
// As torch.optim.Adagrad: eps outside the root, s started by the caller at initial_accumulator_value.
// Differs in rounding only.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Adagrad {
  static constexpr const char* name = "adagrad";
  static constexpr auto state = names("sum");
  static constexpr auto hyper = names("lr", "lr_decay", "eps");
  struct Hyper {
    double lr, lr_decay, eps;
  };
  template <class T>
  struct Uniform {
    T decayed_lr, eps;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    return {h.lr / (1.0 + static_cast<double>(step - 1) * h.lr_decay), h.eps};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& s) {
    s = s + g * g;
    return u.decayed_lr * g / (sqrt(s) + u.eps);
  }
};

using AdagradRules = TypeList<Adagrad>;

}  // namespace fusedstep
