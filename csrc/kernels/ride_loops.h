// The step with which something rides along, in one loop per rule, and what is done tile by tile beside it.
#pragma once
#include "measure.h"
#include "ride.h"
#include "step.h"

namespace fusedstep {
namespace {

// What is asked is looked up for every lane, in memory that the stores may reach as far as the compiler knows: it would
// otherwise make a loop of its own for each combination.
template <class Rule, class V, std::size_t... S>
FS_INLINE void ride_loop(const UniformBytes& uniform, void* const* streams, const RideStreams& beside, std::int64_t n,
                         std::index_sequence<S...> states) {
  using T = typename V::value_type;
  const auto u = *reinterpret_cast<const StepUniform<Rule, T>*>(uniform.bytes);
  const Ride<T> numbers(uniform.ride);
  T* const p = static_cast<T*>(streams[0]);
  T* const g = static_cast<T*>(streams[1]);
  [[maybe_unused]] T* const s[] = {static_cast<T*>(streams[2 + S])..., nullptr};
  for_lanes<V>(n, [&](std::int64_t i, int m) {
    if constexpr (V::size > 1) {
      prefetch(p + i);
      prefetch(g + i);
      (prefetch(s[S] + i), ...);
      if (beside.average) prefetch(static_cast<const T*>(beside.average) + i);
    }
    const RideNumbers& asked = uniform.ride;
    const bool masked = beside.keep || asked.nonzero;
    const V param = load<V>(p, i, m);
    V keep = param, q = param, grad = limited(u.common, load<V>(g, i, m));
    if (masked) {
      keep = asked.nonzero ? is_nonzero(param) : load<V>(beside.keep, i, m);
      grad = where_kept(keep, grad, zero<V>());
    }
    decay(u.common, grad, q);
    V state[] = {load<V>(s[S], i, m)..., zero<V>()};
    V d = direction<Rule>(u, grad, q, state, states);
    if (asked.cautious) d = agreeing(d, grad);
    if (asked.cautious_decay) q = decayed_with(numbers, param, d);
    V next = shrunk(numbers, q - d);
    if (masked) {
      next = where_kept(keep, next, zero<V>());
      d = where_kept(keep, d, zero<V>());
      ((state[S] = where_kept(keep, state[S], V(numbers.start[S]))), ...);
    }
    store(next, p, i, m);
    (store(state[S], s[S], i, m), ...);
    if (beside.average) {
      store(averaged(numbers, load<V>(beside.average, i, m), next), beside.average, i, m);
    }
    if (beside.direction) store(d, beside.direction, i, m);
  });
}

template <class Rule, class V>
constexpr RideFn ride_step() {
  if constexpr (assigns<Rule> || sum_count<Rule> > 0) {
    return nullptr;
  } else {
    return [](const UniformBytes& uniform, void* const* streams, const RideStreams& beside, std::int64_t n) {
      ride_loop<Rule, V>(uniform, streams, beside, n, std::make_index_sequence<Rule::state.size>{});
    };
  }
}

template <class V>
struct RideLoops {
  using T = typename V::value_type;

  static void keep_nonzero(const void* p, std::int64_t n, void* keep) {
    for_lanes<V>(n, [&](std::int64_t i, int m) { store(is_nonzero(load<V>(p, i, m)), keep, i, m); });
  }

  static void mask(const void* keep, const void* x, std::int64_t n, void* to) {
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      store(where_kept(load<V>(keep, i, m), load<V>(x, i, m), zero<V>()), to, i, m);
    });
  }

  static void average(const UniformBytes& uniform, const void* p, std::int64_t n, void* e) {
    const Ride<T> r(uniform.ride);
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      if constexpr (V::size > 1) prefetch(static_cast<const T*>(e) + i);
      store(averaged(r, load<V>(e, i, m), load<V>(p, i, m)), e, i, m);
    });
  }

  static double add_squares(const void* x, std::int64_t n, double* lanes, const void* next) {
    constexpr int kGroups = kNormLanes / Wide::size;
    const T* const from = static_cast<const T*>(x);
    Wide sum[kGroups];
    for (int k = 0; k < kGroups; ++k) sum[k] = Wide::load(lanes + k * Wide::size);
    const auto add = [&sum](const T* row) {
      for (int k = 0; k < kGroups; ++k) {
        sum[k] = accumulate<Norm::two, T>(sum[k], Wide::load(row + k * Wide::size));
      }
    };
    std::int64_t i = 0;
    constexpr int kLine = 64 / sizeof(T);
    for (; i + kNormLanes <= n; i += kNormLanes) {
      for (int line = 0; line < kNormLanes; line += kLine) fetch(static_cast<const T*>(next) + i + line);
      add(from + i);
    }
    if (i < n) {
      T rest[kNormLanes] = {};
      for (std::int64_t j = i; j < n; ++j) rest[j - i] = from[j];
      add(rest);
    }
    for (int k = 0; k < kGroups; ++k) sum[k].store(lanes + k * Wide::size);
    for (int k = 1; k < kGroups; ++k) sum[0] = sum[0] + sum[k];
    double each[Wide::size], all = 0.0;
    sum[0].store(each);
    for (const double x : each) all += x;
    return all;
  }

  static double largest(const void* x, std::int64_t n) {
    V most = zero<V>();
    for_lanes<V>(n, [&](std::int64_t i, int m) { most = max(abs(load<V>(x, i, m)), most); });
    T each[V::size], out = T(0);
    most.store(each);
    for (const T x : each) out = x > out ? x : out;
    return static_cast<double>(out);
  }

  // How many lanes there are in all: a tile has fewer elements than a float counts.
  static double total(V ones) {
    T each[V::size], sum = T(0);
    ones.store(each);
    for (const T x : each) sum += x;
    return static_cast<double>(sum);
  }

  static void add_clipped(const UniformBytes& uniform, const void* g, std::int64_t n, double* count) {
    const Common<T> u = *reinterpret_cast<const Common<T>*>(uniform.bytes);
    V sum = zero<V>();
    for_lanes<V>(n, [&](std::int64_t i, int m) { sum = sum + is_clipped(u, load<V>(g, i, m)); });
    *count += total(sum);
  }

  static void add_nonfinite(const void* g, std::int64_t n, double* nans, double* infinite) {
    V nan = zero<V>(), inf = zero<V>();
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      const V x = load<V>(g, i, m);
      nan = nan + is_nan(x);
      inf = inf + is_infinite(x);
    });
    *nans += total(nan);
    *infinite += total(inf);
  }
};

template <class V>
constexpr RideTable ride_table() {
  using L = RideLoops<V>;
  return {L::keep_nonzero, L::mask, L::average, L::add_squares, L::largest, L::add_clipped, L::add_nonfinite};
}

}  // namespace
}  // namespace fusedstep
