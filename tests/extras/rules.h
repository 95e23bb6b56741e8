// Rules that no user has: they use what the contract offers and the shipped rules do not. tests/core/test_extras.py
// specifies them.
#pragma once
#include "../../csrc/rules/rule.h"

namespace fusedstep {

// Every operation of a lane that moves bits and rounds nothing.
struct LaneOps {
  static constexpr bool assigns = true;
  static constexpr const char* name = "lane_ops";
  static constexpr auto state = names("a", "b", "c");
  static constexpr auto hyper = names();
  struct Hyper {};
  template <class T>
  struct Uniform {};
  FS_INLINE static Uniform<double> prepare(const Hyper&, std::int64_t) { return {}; }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>&, V g, V p, V& a, V& b, V& c) {
    const V largest = max_nan(g, p);
    a = select(g > p, a, -a);
    b = sign(b);
    c = abs(c);
    return largest;
  }
};

// Two scalar states: a running product, and the step before.
struct Product {
  static constexpr const char* name = "product";
  static constexpr auto state = names();
  static constexpr auto hyper = names("lr", "factor");
  static constexpr auto scalars = names("product", "last");
  struct Hyper {
    double lr, factor;
  };
  template <class T>
  struct Uniform {
    T rate;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t step, Scalars& s) {
    const double last = s.at[1];
    s.set(0, s.at[0] * h.factor);
    s.set(1, static_cast<double>(step) / 3.0);
    return {h.lr * s.at[0] + last};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V) {
    return u.rate * g;
  }
};

// Two numbers that the tensors of a group share, and one of each tensor's own.
struct Shared {
  static constexpr const char* name = "shared";
  static constexpr auto state = names();
  static constexpr auto hyper = names("lr", "weight");
  static constexpr auto scalars = names("count");
  static constexpr auto group_scalars = names("weight_sum", "largest_lr");
  struct Hyper {
    double lr, weight;
  };
  template <class T>
  struct Uniform {
    T rate;
  };
  FS_INLINE static void advance(const Hyper& h, GroupScalars& group) {
    group.set(1, group.at[1] > h.lr ? group.at[1] : h.lr);
    group.set(0, group.at[0] + group.at[1] * h.weight);
  }
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t, Scalars& s, const GroupScalars& group) {
    s.set(0, s.at[0] + 1.0);
    return {h.lr * group.at[1] / (group.at[0] * s.at[0])};
  }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>& u, V g, V) {
    return u.rate * g;
  }
};

// A step whose length depends on sums over the tensor, of squares and of values.
struct TrustRatio {
  static constexpr const char* name = "trust_ratio";
  static constexpr auto state = names("m");
  static constexpr auto hyper = names("lr", "beta");
  static constexpr Sum sums[] = {Sum::squares, Sum::values};
  struct Hyper {
    double lr, beta;
  };
  template <class T>
  struct Uniform {
    T beta, one_minus_beta;
  };
  template <class T>
  struct Scale {
    T rate;
  };
  FS_INLINE static Uniform<double> prepare(const Hyper& h, std::int64_t) { return {h.beta, 1.0 - h.beta}; }
  FS_INLINE static Scale<double> scale(const Hyper& h, std::int64_t step, const double* sums, std::int64_t numel) {
    return {h.lr * __builtin_sqrt(sums[0]) / (static_cast<double>(step) + sums[1] * sums[1] / double(numel))};
  }

  template <class V, class T>
  FS_INLINE static void move(const Uniform<T>& u, V g, V, V& m) {
    m = u.beta * m + u.one_minus_beta * g;
  }
  template <class V, class T>
  FS_INLINE static V unscaled(const Uniform<T>& u, V p, V m) {
    return m + u.one_minus_beta * p;
  }
  template <class V, class T>
  FS_INLINE static void measure(const Uniform<T>& u, V* x, V g, V p, V m) {
    x[0] = unscaled(u, p, m);
    x[1] = g * p;
  }
  template <class V, class T>
  FS_INLINE static V apply(const Uniform<T>& u, const Scale<T>& s, V, V p, V m) {
    return s.rate * unscaled(u, p, m);
  }
};

using ExtraRules = TypeList<LaneOps, Product, Shared, TrustRatio>;

}  // namespace fusedstep
