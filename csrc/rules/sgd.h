// Gradient descent, and SGD with momentum (Polyak 1964; Nesterov as Sutskever et al. 2013, section 2).
//
//   p <- p - lr * g
//
//   b <- g                                   first step
//   b <- momentum * b + (1 - dampening) * g  later steps
//   p <- p - lr * (nesterov ? g + momentum * b : b)
//
// As torch.optim.SGD, which takes the first gradient undampened too. Differs in rounding only.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Sgd {
  static constexpr const char* name = "sgd";
  static constexpr auto state = names();
  static constexpr auto hyper = names("lr");
  struct Hyper {
    double lr;
  };
  template <class T>
  struct Uniform {
    T lr;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t) { return {h.lr}; }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V) {
    return u.lr * g;
  }
};

struct SgdMomentum {
  static constexpr bool first_differs = true;
  static constexpr const char* name = "sgd";
  static constexpr auto state = names("momentum_buffer");
  static constexpr auto hyper = names("lr", "momentum", "dampening", "nesterov");
  struct Hyper {
    double lr, momentum, dampening, nesterov;
  };
  template <class T>
  struct Uniform {
    T lr, momentum, one_minus_dampening, nesterov, first;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step) {
    return {h.lr, h.momentum, 1.0 - h.dampening, h.nesterov != 0.0 ? 1.0 : 0.0, step == 1 ? 1.0 : 0.0};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& b) {
    if (u.first != T(0)) {
      b = g;
    } else {
      b = u.momentum * b + u.one_minus_dampening * g;
    }
    if (u.nesterov != T(0)) return u.lr * (g + u.momentum * b);
    return u.lr * b;
  }
};

using SgdRules = TypeList<Sgd, SgdMomentum>;

}  // namespace fusedstep
