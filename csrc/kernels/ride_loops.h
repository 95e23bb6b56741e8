// What rides along, over a tile in L1, before and after the direction of the rule: one set of loops per instruction set
// and compute type, for all rules.
#pragma once
#include "measure.h"
#include "ride.h"
#include "step.h"

namespace fusedstep {
namespace {

template <class V>
struct RideLoops {
  using T = typename V::value_type;

  static const Common<T>& common_of(const UniformBytes& u) { return *reinterpret_cast<const Common<T>*>(u.bytes); }

  static void keep_nonzero(const void* p, std::int64_t n, void* keep) {
    for_lanes<V>(n, [&](std::int64_t i, int m) { store(is_nonzero(load<V>(p, i, m)), keep, i, m); });
  }

  static void mask(const void* keep, const void* x, std::int64_t n, void* to) {
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      store(where_kept(load<V>(keep, i, m), load<V>(x, i, m), zero<V>()), to, i, m);
    });
  }

  static void before(const UniformBytes& uniform, const void* keep, const void* p, const void* g, std::int64_t n,
                     void* q, void* to) {
    const Common<T> u = common_of(uniform);
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      if constexpr (V::size > 1) {
        prefetch(static_cast<const T*>(p) + i);
        prefetch(static_cast<const T*>(g) + i);
      }
      V param = load<V>(p, i, m);
      V grad = limited(u, load<V>(g, i, m));
      if (keep) grad = where_kept(load<V>(keep, i, m), grad, zero<V>());
      decay(u, grad, param);
      store(param, q, i, m);
      store(grad, to, i, m);
    });
  }

  static void after(const UniformBytes& uniform, const void* keep, const void* g, void* d, std::int64_t n, void* p,
                    void* const* state, int states) {
    const Common<T> u = common_of(uniform);
    const Ride<T> r(uniform.ride);
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      const V param = load<V>(p, i, m);
      V direction = final_direction(r, load<V>(d, i, m), load<V>(g, i, m));
      V next = moved(r, param, u.param_mul * param, direction);
      if (keep) {
        const V kept = load<V>(keep, i, m);
        next = where_kept(kept, next, zero<V>());
        direction = where_kept(kept, direction, zero<V>());
        for (int k = 0; k < states; ++k) {
          store(where_kept(kept, load<V>(state[k], i, m), V(r.start[k])), state[k], i, m);
        }
      }
      store(direction, d, i, m);
      store(next, p, i, m);
    });
  }

  static void average(const UniformBytes& uniform, const void* p, std::int64_t n, void* e) {
    const Ride<T> r(uniform.ride);
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      if constexpr (V::size > 1) prefetch(static_cast<const T*>(e) + i);
      store(averaged(r, load<V>(e, i, m), load<V>(p, i, m)), e, i, m);
    });
  }

  // Adds n elements to the lanes of a sum of squares; all but the last call for a block bring whole rows.
  static void add_squares(const void* x, std::int64_t n, double* lanes) {
    const T* const from = static_cast<const T*>(x);
    for (std::int64_t row = 0; row < n; row += kNormLanes) {
      const bool whole = n - row >= kNormLanes;
      T rest[kNormLanes] = {};
      for (std::int64_t i = row; !whole && i < n; ++i) rest[i - row] = from[i];
      const T* const at = whole ? from + row : rest;
      for (int i = 0; i < kNormLanes; i += Wide::size) {
        accumulate<Norm::two>(Wide::load(lanes + i), Wide::load(at + i)).store(lanes + i);
      }
    }
  }

  static double largest(const void* x, std::int64_t n) {
    V most = zero<V>();
    for_lanes<V>(n, [&](std::int64_t i, int m) { most = max_nan(abs(load<V>(x, i, m)), most); });
    T each[V::size];
    most.store(each);
    double out = 0.0;
    for (const T x : each) out = fold<Norm::inf>(static_cast<double>(x), out);
    return out;
  }

  static void add_counts(const UniformBytes& uniform, const void* g, std::int64_t n, double* counts) {
    const Common<T> u = common_of(uniform);
    V sum[kStatCounts] = {zero<V>(), zero<V>(), zero<V>()};
    for_lanes<V>(n, [&](std::int64_t i, int m) {
      V one[kStatCounts] = {zero<V>(), zero<V>(), zero<V>()};
      count(u, load<V>(g, i, m), one);
      for (int k = 0; k < kStatCounts; ++k) sum[k] = sum[k] + one[k];
    });
    for (int k = 0; k < kStatCounts; ++k) {
      T each[V::size];
      sum[k].store(each);
      for (const T x : each) counts[k] += static_cast<double>(x);
    }
  }
};

template <class V>
constexpr RideTable ride_table() {
  using L = RideLoops<V>;
  return {L::keep_nonzero, L::mask, L::before, L::after, L::average, L::add_squares, L::largest, L::add_counts};
}

}  // namespace
}  // namespace fusedstep
