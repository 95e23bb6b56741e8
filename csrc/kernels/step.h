// The step loop of a CPU: load, update, store. One update serves whole lanes and the tail (partial loads). Of a rule
// with sums it is the second pass, which moves no state.
#pragma once
#include "update.h"

namespace fusedstep {
namespace {

// The arithmetic of a wide rule fills the reorder buffer, so that the core itself looks too few lines ahead. Fetching
// 512 bytes ahead takes AdamW over 32M elements from 1.34 to 1.40-1.9 times the speed of torch's fused step (2-core Zen
// 4, one run each, alternating builds); 1,024 and 2,048 do less. Not for lanes of one element: the compiler vectorises
// that loop, but not around a prefetch.
FS_INLINE void fetch([[maybe_unused]] const void* at) {
#if defined(__GNUC__)
  __builtin_prefetch(at);
#endif
}
FS_INLINE void prefetch(const void* at) { fetch(static_cast<const char*>(at) + 512); }

template <class Rule, class V, std::size_t... S>
FS_INLINE void step_loop(const void* uniform, void* const* streams, std::int64_t n, std::index_sequence<S...> states) {
  using T = typename V::value_type;
  const StepUniform<Rule, T> u = *static_cast<const StepUniform<Rule, T>*>(uniform);
  T* const p = static_cast<T*>(streams[0]);
  const T* const g = static_cast<const T*>(streams[1]);
  [[maybe_unused]] T* const s[] = {static_cast<T*>(streams[2 + S])..., nullptr};

  std::int64_t i = 0;
  for (; i + V::size <= n; i += V::size) {
    if constexpr (V::size > 1) {
      prefetch(p + i);
      prefetch(g + i);
      (prefetch(s[S] + i), ...);
    }
    V param = V::load(p + i);
    V state[] = {V::load(s[S] + i)..., V(T(0))};
    update_one<Rule>(u, V::load(g + i), param, state, states);
    param.store(p + i);
    if constexpr (sum_count<Rule> == 0) (state[S].store(s[S] + i), ...);
  }
  if (const int rest = static_cast<int>(n - i); rest > 0) {
    V param = V::load_partial(p + i, rest);
    V state[] = {V::load_partial(s[S] + i, rest)..., V(T(0))};
    update_one<Rule>(u, V::load_partial(g + i, rest), param, state, states);
    param.store_partial(p + i, rest);
    if constexpr (sum_count<Rule> == 0) (state[S].store_partial(s[S] + i, rest), ...);
  }
}

template <class Rule, class V>
void step(const void* uniform, void* const* streams, std::int64_t n) {
  static_assert(Rule::state.size <= kMaxState);
  step_loop<Rule, V>(uniform, streams, n, std::make_index_sequence<Rule::state.size>{});
}

}  // namespace
}  // namespace fusedstep
