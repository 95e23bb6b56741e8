// SignSGD, and with momentum Signum (Bernstein et al. 2018, "signSGD: Compressed Optimisation for Non-Convex
// Problems").
//
//   p <- p - lr * sign(g)
//
//   b <- momentum * b + (1 - momentum) * g
//   p <- p - lr * sign(b)                         with momentum
//
// As pytorch_optimizer's SignSGD. Differs for a NaN, which stays one as in lion.h, and for complex numbers: their parts
// are numbers of their own.
#pragma once
#include "rule.h"

namespace fusedstep {

struct SignSgd {
  static constexpr const char* name = "signsgd";
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
    return u.lr * sign(g);
  }
};

struct Signum {
  static constexpr const char* name = "signsgd";
  static constexpr auto state = names("momentum_buffer");
  static constexpr auto hyper = names("lr", "momentum");
  struct Hyper {
    double lr, momentum;
  };
  template <class T>
  struct Uniform {
    T lr, momentum, one_minus_momentum;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t) {
    return {h.lr, h.momentum, 1.0 - h.momentum};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& b) {
    b = u.momentum * b + u.one_minus_momentum * g;
    return u.lr * sign(b);
  }
};

using SignSgdRules = TypeList<SignSgd, Signum>;

}  // namespace fusedstep
