// Adadelta (Zeiler 2012, "ADADELTA: An Adaptive Learning Rate Method", algorithm 1).
//
//   v <- rho * v + (1 - rho) * g^2
//   e  = sqrt((a + eps) / (v + eps)) * g
//   a <- rho * a + (1 - rho) * e^2
//   p <- p - lr * e
//
// As torch.optim.Adadelta. Differs in rounding only: the root of a quotient instead of a quotient of roots.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Adadelta {
  static constexpr const char* name = "adadelta";
  static constexpr auto state = names("square_avg", "acc_delta");
  static constexpr auto hyper = names("lr", "rho", "eps");
  struct Hyper {
    double lr, rho, eps;
  };
  template <class T>
  struct Uniform {
    T lr, rho, one_minus_rho, eps;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t) { return {h.lr, h.rho, 1.0 - h.rho, h.eps}; }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& v, V& a) {
    v = u.rho * v + u.one_minus_rho * (g * g);
    const V e = sqrt((a + u.eps) / (v + u.eps)) * g;
    a = u.rho * a + u.one_minus_rho * (e * e);
    return u.lr * e;
  }
};

using AdadeltaRules = TypeList<Adadelta>;

}  // namespace fusedstep
