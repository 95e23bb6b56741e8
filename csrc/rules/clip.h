// p <- clamp(c * p, -clip_value, clip_value): clipping in place. The step loop has applied c and the bound to the
// gradient stream before any rule runs, and here that stream is the written array itself, so the rule only assigns it.
//
// Differs from torch.nn.utils.clip_grad_norm_: c is computed in float64 and rounded once to the compute type.
#pragma once
#include "rule.h"

namespace fusedstep {

struct Clip {
  static constexpr bool assigns = true;
  static constexpr const char* name = "clip";
  static constexpr auto state = names();
  static constexpr auto hyper = names();
  struct Hyper {};
  template <class T>
  struct Uniform {};
  FS_INLINE static Uniform<double> prepare(const Hyper&, std::int64_t) { return {}; }

  template <class V, class T>
  FS_INLINE static V update(const Uniform<T>&, V g, V) {
    return g;
  }
};

using ClipRules = TypeList<Clip>;

}  // namespace fusedstep
