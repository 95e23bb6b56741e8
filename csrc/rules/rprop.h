// Rprop (Riedmiller & Braun 1993), the variant that forgets a gradient whose sign has changed (iRprop-: Igel & Huesken
// 2000).
//
//   x  = g * prev
//   s <- min(step_max, max(step_min, s * (x > 0 ? eta_plus : x < 0 ? eta_minus : 1)))       s starts at lr
//   g <- x < 0 ? 0 : g,  prev <- g
//   p <- p - sign(g) * s
//
// As torch.optim.Rprop, to the bit. The sign of a NaN is 0 as there: its weight stays for this step, and nothing of it
// lasts, as prev is the last gradient alone. lr is not read: the caller starts the step sizes at it.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Rprop {
  static constexpr const char* name = "rprop";
  static constexpr auto state = names("prev", "step_size");
  static constexpr auto hyper = names("lr", "eta_minus", "eta_plus", "step_min", "step_max");
  struct Hyper {
    double lr, eta_minus, eta_plus, step_min, step_max;
  };
  template <class T>
  struct Uniform {
    T eta_minus, eta_plus, step_min, step_max;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t) {
    return {h.eta_minus, h.eta_plus, h.step_min, h.step_max};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& prev, V& size) {
    const V x = g * prev, zero = V(T(0));
    size = size * select(x > zero, V(u.eta_plus), select(zero > x, V(u.eta_minus), V(T(1))));
    size = min(V(u.step_max), max(V(u.step_min), size));  // in this order a NaN stays
    prev = select(zero > x, zero, g);
    return select(prev > zero, V(T(1)), select(zero > prev, V(T(-1)), zero)) * size;
  }
};

using RpropRules = TypeList<Rprop>;

}  // namespace fusedstep
