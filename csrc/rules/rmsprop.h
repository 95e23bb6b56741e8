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

  template <class V, class T>
  FS_INLINE static V denominator(const Uniform<T>& u, V g, V& s) {
    s = u.alpha * s + u.one_minus_alpha * (g * g);
    return sqrt(s) + u.eps;
  }
  template <class V, class T>
  FS_INLINE static V denominator(const Uniform<T>& u, V g, V& s, V& a) {
    s = u.alpha * s + u.one_minus_alpha * (g * g);
    a = u.alpha * a + u.one_minus_alpha * g;
    return sqrt(s - a * a) + u.eps;
  }
  template <class V, class T>
  FS_INLINE static V average(const Uniform<T>& u, V x, V& b) {
    b = u.momentum * b + x;
    return u.lr * b;
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& s) {
    return u.lr * g / denominator(u, g, s);
  }
  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& s, V& second) {  // grad_avg or momentum_buffer
    if constexpr (kCentered) {
      return u.lr * g / denominator(u, g, s, second);
    } else {
      return average(u, g / denominator(u, g, s), second);
    }
  }
  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V, V& s, V& a, V& b) {
    return average(u, g / denominator(u, g, s, a), b);
  }
};

using RmspropRules = TypeList<Rmsprop<false, false>, Rmsprop<false, true>, Rmsprop<true, false>, Rmsprop<true, true>>;

}  // namespace fusedstep
