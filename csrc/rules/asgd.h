// ASGD (Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging"), with the rates of Bottou's
// sgd.
//
//   p  <- p - (eta * lambd * p + eta * g)                 eta starts at lr
//   ax <- mu == 1 ? p : ax + mu * (p - ax)                mu starts at 1
//   eta <- lr / (1 + lambd * lr * step)^alpha
//   mu  <- 1 / max(1, step - t0)
//
// As torch.optim.ASGD; differs in rounding, and the power is fs_pow. eta and mu are used as they are stored, float32
// unless torch's default dtype is float64.
#pragma once
#include "rule.h"

namespace fusedstep {

struct ASGD {
  static constexpr const char* name = "asgd";
  static constexpr auto state = names("ax");
  static constexpr auto scalars = names("eta", "mu");
  static constexpr auto hyper = names("lr", "lambd", "alpha", "t0");
  struct Hyper {
    double lr, lambd, alpha, t0;
  };
  template <class T>
  struct Uniform {
    T eta, eta_lambd, mu;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step, Scalars& s) {
    const double eta = s.at[0], mu = s.at[1], count = static_cast<double>(step);
    const double since = count - h.t0;
    s.set(0, h.lr / fs_pow(1.0 + h.lambd * h.lr * count, h.alpha));
    s.set(1, 1.0 / (since > 1.0 ? since : 1.0));
    return {eta, eta * h.lambd, mu};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V p, V& ax) {
    const V d = u.eta_lambd * p + u.eta * g;
    // Selected rather than branched on: ax would be read element by element in the branch.
    const V one = V(T(1)), mu = V(u.mu), average = ax + mu * (p - d - ax);
    ax = select(one > mu, average, select(mu > one, average, p - d));
    return d;
  }
};

using ASGDRules = TypeList<ASGD>;

}  // namespace fusedstep
