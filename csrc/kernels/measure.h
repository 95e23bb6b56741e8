// The first pass of a rule with sums: its states move, then what it measures is added up in the shape of the norms.
#pragma once
#include "norm.h"
#include "update.h"

namespace fusedstep {
namespace {

// Calls body(i, n) for every lane of elements, n of them.
template <class V, class Body>
FS_INLINE void for_lanes(std::int64_t n, const Body& body) {
  std::int64_t i = 0;
  for (; i + V::size <= n; i += V::size) body(i, V::size);
  if (i < n) body(i, static_cast<int>(n - i));
}

template <class V>
FS_INLINE V load(const void* stream, std::int64_t i, int n) {
  const auto* const x = static_cast<const typename V::value_type*>(stream) + i;
  return n == V::size ? V::load(x) : V::load_partial(x, n);
}

template <class V>
FS_INLINE void store(V x, void* stream, std::int64_t i, int n) {
  auto* const to = static_cast<typename V::value_type*>(stream) + i;
  if (n == V::size) {
    x.store(to);
  } else {
    x.store_partial(to, n);
  }
}

template <class Rule, class V, std::size_t... S>
void move_states(const void* uniform, void* const* streams, std::int64_t n, std::index_sequence<S...>) {
  const auto& u = *static_cast<const StepUniform<Rule, typename V::value_type>*>(uniform);
  for_lanes<V>(n, [&](std::int64_t i, int lanes) {
    V p = load<V>(streams[0], i, lanes), g = load<V>(streams[1], i, lanes);
    V state[] = {load<V>(streams[2 + S], i, lanes)..., V(typename V::value_type(0))};
    before(u.common, g, p);
    Rule::move(u.rule, g, p, state[S]...);
    (store(state[S], streams[2 + S], i, lanes), ...);
  });
}

// A bit for each sum that is one of squares. Rule::sums itself, read at run time, would be a symbol of its own.
template <class Rule>
consteval unsigned squares() {
  unsigned bits = 0;
  for (int k = 0; k < sum_count<Rule>; ++k) bits |= (Rule::sums[k] == Sum::squares) << k;
  return bits;
}

// Adds n elements to the lanes of each sum; all but the last call for a block bring whole rows of kNormLanes.
template <class Rule, class V, std::size_t... S>
void measure(const void* uniform, void* const* streams, std::int64_t n, double (*sums)[kNormLanes],
             std::index_sequence<S...>) {
  using T = typename V::value_type;
  constexpr int kSums = sum_count<Rule>;
  static_assert(kSums <= kMaxSums);
  constexpr unsigned kSquares = squares<Rule>();
  const auto& u = *static_cast<const StepUniform<Rule, T>*>(uniform);
  for (std::int64_t row = 0; row < n; row += kNormLanes) {
    T values[kSums][kNormLanes] = {};
    for_lanes<V>(n - row < kNormLanes ? n - row : kNormLanes, [&](std::int64_t i, int lanes) {
      V p = load<V>(streams[0], row + i, lanes), g = load<V>(streams[1], row + i, lanes);
      before(u.common, g, p);
      V x[kMaxSums] = {V(T(0)), V(T(0))};
      Rule::measure(u.rule, x, g, p, load<V>(streams[2 + S], row + i, lanes)...);
      for (int k = 0; k < kSums; ++k) store(x[k], values[k], i, lanes);
    });
    for (int k = 0; k < kSums; ++k) {
      for (int i = 0; i < kNormLanes; i += Wide::size) {
        const Wide x = Wide::load(values[k] + i);
        const Wide sum = Wide::load(sums[k] + i);
        (kSquares >> k & 1 ? accumulate<Norm::two, T>(sum, x) : sum + x).store(sums[k] + i);
      }
    }
  }
}

template <class Rule, class V>
constexpr FirstPass first_pass() {
  if constexpr (sum_count<Rule> == 0) {
    return {0, nullptr, nullptr};
  } else {
    using States = std::make_index_sequence<Rule::state.size>;
    return {sum_count<Rule>,
            [](const void* u, void* const* streams, std::int64_t n) { move_states<Rule, V>(u, streams, n, States{}); },
            [](const void* u, void* const* streams, std::int64_t n, double (*sums)[kNormLanes]) {
              measure<Rule, V>(u, streams, n, sums, States{});
            }};
  }
}

}  // namespace
}  // namespace fusedstep
