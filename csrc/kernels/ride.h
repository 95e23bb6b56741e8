// What rides along in the pass of a step, around every rule alike: masks, cautious steps and decay, the proximal step
// of L1, averages of the parameters, statistics. In the order of reference.after:
//
//   g <- keep ? g : 0                                     after it has been clipped
//   d <- rule(g, q, states),  q the decayed p
//   d <- d and g have one sign ? d : 0                    cautious (Liang et al. 2024), unscaled
//   q <- d and p have different signs ? p : p - decay * p    cautious decay (Chen et al. 2025)
//   p <- q - d
//   p <- p - max(-threshold, min(threshold, p))           L1 as a proximal step (Duchi & Singer 2009)
//   p, states <- keep ? p, states : 0, start
//   e <- e + weight * (p - e)                             of p as it is stored
//
// Signs are compared, as products of small numbers would underflow. A NaN stays a NaN everywhere.
#pragma once
#include "update.h"

namespace fusedstep {

// How much decoupled decay takes of a parameter: of lr * weight_decay, weight_decay, lr / decay_lr * weight_decay,
// lr^2 / decay_lr * weight_decay.
enum class DecayMode : std::uint8_t { lr, fixed, relative, squared };

// As the caller of a step gave it.
struct RideOptions {
  double l1 = 0.0, decay_lr = 0.0, weight = 1.0;
  double start[kMaxState] = {};
  DecayMode decay_mode = DecayMode::lr;
  bool cautious = false, cautious_decay = false, nonzero = false, stats = false;

  // Whether a kernel has anything to do for it.
  bool any() const { return l1 != 0.0 || cautious || cautious_decay || nonzero || stats; }
};

// Constant during a step; in float64, to be rounded once.
struct RideNumbers {
  double threshold, decay, weight;
  double start[kMaxState];  // of the states of what a mask leaves out
  bool cautious, cautious_decay, nonzero;
};

inline constexpr int kMaxUniformBytes = 256;

// A StepUniform<Rule, T> of any rule and type, and what the keys of the step's random numbers are made from.
struct alignas(16) UniformBytes {
  std::byte bytes[kMaxUniformBytes];
  std::uint64_t step_key;
  RideNumbers ride;
};

// What is known of a tensor after a step, one float64 each: 2-norms of the parameter before it, of the gradient as it
// was given and of d; the largest |d|; how many elements of the gradient were clipped by value, are NaN, are infinite.
// Of a masked tensor, of what is kept.
inline constexpr int kStats = 7, kStatNorms = 3, kStatCounts = 3;
enum Stat { kParamNorm, kGradNorm, kUpdateNorm, kUpdateMax, kClipped, kNan, kInf };

namespace {

template <class T>
struct Ride {
  T threshold, decay, weight;
  T start[kMaxState];

  FS_INLINE explicit Ride(const RideNumbers& n)
      : threshold(static_cast<T>(n.threshold)), decay(static_cast<T>(n.decay)), weight(static_cast<T>(n.weight)) {
    for (int k = 0; k < kMaxState; ++k) start[k] = static_cast<T>(n.start[k]);
  }
};

template <class V>
FS_INLINE V zero() {
  return V(typename V::value_type(0));
}

// More than 0 where p is not 0, a NaN included: what is kept of a model that was pruned once.
template <class V>
FS_INLINE V is_nonzero(V p) {
  return min(abs(p), V(typename V::value_type(1)));
}

template <class V>
FS_INLINE V where_kept(V keep, V x, V other) {
  return select(keep > zero<V>(), x, other);
}

// x turned where d is negative: more than 0 if both have one sign, less if they have not.
template <class V>
FS_INLINE V turned(V x, V d, V if_zero) {
  return select(d > zero<V>(), x, select(zero<V>() > d, -x, if_zero));
}

// d where it has the sign of the gradient.
template <class V>
FS_INLINE V agreeing(V d, V g) {
  const V h = turned(g, d, d);
  return select(h > zero<V>(), d, select(zero<V>() > h, zero<V>(), h));
}

// p after cautious decay.
template <class T, class V>
FS_INLINE V decayed_with(const Ride<T>& r, V p, V d) {
  if (r.decay == T(0)) return p;
  return p - select(zero<V>() > turned(p, d, zero<V>()), zero<V>(), r.decay * p);
}

template <class T, class V>
FS_INLINE V shrunk(const Ride<T>& r, V p) {
  if (r.threshold != T(0)) p = p - max(V(-r.threshold), min(V(r.threshold), p));
  return p;
}

template <class T, class V>
FS_INLINE V averaged(const Ride<T>& r, V e, V p) {
  return r.weight == T(1) ? p : e + r.weight * (p - e);
}

template <class T>
FS_INLINE constexpr T largest_finite() {
  return sizeof(T) == 4 ? T(3.402823466385288598e38) : T(1.797693134862315708e308);
}

// 1 where it is so, else 0.
template <class T, class V>
FS_INLINE V is_clipped(const Common<T>& u, V g) {
  return select(abs(g * u.grad_mul) > V(u.clip_value), V(T(1)), zero<V>());
}
template <class V>
FS_INLINE V is_nan(V x) {
  const V one = V(typename V::value_type(1));
  return select(zero<V>() > max(abs(x), -one), one, zero<V>());
}
template <class V>
FS_INLINE V is_infinite(V x) {
  using T = typename V::value_type;
  return select(abs(x) > V(largest_finite<T>()), V(T(1)), zero<V>());
}

}  // namespace
}  // namespace fusedstep
