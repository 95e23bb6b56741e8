// Rules that no user has: they use what the contract offers and the shipped rules do not. tests/test_extras.py
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

using ExtraRules = TypeList<LaneOps, Product>;

}  // namespace fusedstep
