// RMSprop (Hinton, Coursera lecture 6e), centered (Graves 2013, section 4.2), with momentum.
//
//   s <- alpha * s + (1 - alpha) * g^2
//   a <- alpha * a + (1 - alpha) * g            centered
//   d  = sqrt(s) + eps   or   sqrt(s - a^2) + eps
//   p <- p - lr * g / d
//   b <- momentum * b + g / d;  p <- p - lr * b      with momentum
//
// As torch.optim.RMSprop: eps outside the root; centered, a variance that rounds below zero gives NaN, as there.
// Differs in rounding only.
#pragma once
#include "rule.h"

namespace fusedstep {

template <bool kCentered, bool kMomentum>
struct Rmsprop {
  static constexpr const char* name = "rmsprop";
  static constexpr auto state = [] {
    if constexpr (kCentered && kMomentum) {
      return names("square_avg", "grad_avg", "momentum_buffer");
    } else if constexpr (kCentered) {
      return names("square_avg", "grad_avg");
    } else if constexpr (kMomentum) {
      return names("square_avg", "momentum_buffer");
    } else {
      return names("square_avg");
    }
  }();
  static constexpr auto hyper = names("lr", "alpha", "eps", "momentum");
  struct Hyper {
    double lr, alpha, eps, momentum;
  };
  template <class T>
  struct Uniform {
    T lr, alpha, one_minus_alpha, eps, momentum;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t) {
    return {h.lr, h.alpha, 1.0 - h.alpha, h.eps, h.momentum};
  }

  template <class V, class T, class... Rest>
  FS_INLINE static void update(const Uniform<T>& u, V g, V& p, V& s, Rest&... rest) {
    V* const extra[] = {&rest..., nullptr};  // grad_avg, momentum_buffer: those that the variant has
    s = u.alpha * s + u.one_minus_alpha * (g * g);
    V variance = s;
    if constexpr (kCentered) {
      V& a = *extra[0];
      a = u.alpha * a + u.one_minus_alpha * g;
      variance = s - a * a;
    }
    const V denominator = sqrt(variance) + u.eps;
    if constexpr (kMomentum) {
      V& b = *extra[kCentered ? 1 : 0];
      b = u.momentum * b + g / denominator;
      p = p - u.lr * b;
    } else {
      p = p - u.lr * g / denominator;
    }
  }
};

using RmspropRules = RuleList<Rmsprop<false, false>, Rmsprop<false, true>, Rmsprop<true, false>, Rmsprop<true, true>>;

}  // namespace fusedstep
