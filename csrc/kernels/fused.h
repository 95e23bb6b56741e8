// Steps of the commonest rules where parameter and gradient are stored in bfloat16: decoded, updated and encoded in
// registers, in one loop. What tile.h does with the same update, to the same bits; but integers of one lane are worked
// on while another divides, and memory is read meanwhile. From memory AdamW takes 0.6 to 0.8 of the time of tiles, in
// bfloat16 throughout or with float32 state (Zen 4, AVX-512).
//
// On vectors of the compiler rather than of an instruction set. Lanes of one element have none: there, tiles do.
#pragma once
#include "step.h"

namespace fusedstep {
namespace {

#if defined(__GNUC__)

template <class T, int kSize>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * kSize)));
};
template <class T, int kSize>
using Vector = typename VectorOf<T, kSize>::type;

template <class To, class From>
FS_INLINE To same_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// Elements i to i + V::size - 1 of a stream in a format, as a lane, and back. `place` is that of element 0.
template <class F, class V>
struct InRegisters {
  static constexpr int kSize = V::size;
  using Words = Vector<std::uint32_t, kSize>;

  FS_INLINE static V load(const void* stream, std::int64_t i) {
    if constexpr (std::is_same_v<F, Float32>) {
      return V::load(static_cast<const float*>(stream) + i);
    } else {
      typename V::Halves x;
      std::memcpy(&x, static_cast<const std::uint16_t*>(stream) + i, sizeof x);
      return V(same_bits<decltype(V::r)>(same_bits<Words>(V::widen(x)) << 16));
    }
  }

  FS_INLINE static void store(V x, void* stream, std::int64_t i, const Place& place) {
    if constexpr (std::is_same_v<F, Float32>) {
      x.store(static_cast<float*>(stream) + i);
    } else {
      const Words bits = same_bits<Words>(x.r);
      Words added;
      if constexpr (F::draws) {
        added = same_bits<Words>(V::widen(same_bits<typename V::Halves>(hashes(place, i))));
      } else {
        added = (bits >> 16 & 1u) + 0x7fffu;
      }
      const auto value = same_bits<Vector<float, kSize>>(x.r);
      const auto out =
          V::narrow(same_bits<typename V::Words>(value != value ? Words{} + 0x7fc0u : (bits + added) >> 16));
      std::memcpy(static_cast<std::uint16_t*>(stream) + i, &out, sizeof out);
    }
  }

 private:
  // As Place has them, of so many elements from an even one on.
  FS_INLINE static auto hashes(const Place& place, std::int64_t i) {
    using Pairs = Vector<std::uint32_t, kSize / 2>;
    Pairs x;
    for (int k = 0; k < kSize / 2; ++k) x[k] = static_cast<std::uint32_t>(k);
    return place.hash(x + place.pair_of(place.first + i));
  }
};

template <class Rule, class... F>
struct Fused {
  static constexpr int kStreams = sizeof...(F);
  static_assert(kStreams == 2 + Rule::state.size);

  // Whole lanes.
  template <class V, std::size_t... K, std::size_t... S>
  FS_INLINE static void lanes(const StepUniform<Rule, float>& u, void* const* streams, std::int64_t n,
                              const Place* places, std::index_sequence<K...>, std::index_sequence<S...> states) {
    for (std::int64_t i = 0; i < n; i += V::size) {
      (prefetch(static_cast<const typename F::Stored*>(streams[K]) + i), ...);
      V x[] = {InRegisters<F, V>::load(streams[K], i)...};
      V state[] = {x[2 + S]..., V(0.0f)};
      update_one<Rule>(u, x[1], x[0], state, states);
      ((x[2 + S] = state[S]), ...);
      ((K == 1 ? void() : InRegisters<F, V>::store(x[K], streams[K], i, places[K])), ...);
    }
  }

  // `first` is even. What is no whole lane passes through the same loop, in copies with zeros behind.
  template <class V>
  static void step(const void* uniform, void* const* streams, std::int64_t n, const std::uint64_t* keys,
                   std::int64_t first) {
    constexpr int kBytes[] = {F::item_size...};
    const StepUniform<Rule, float> u = *static_cast<const StepUniform<Rule, float>*>(uniform);
    const std::int64_t whole = n / V::size * V::size;
    alignas(64) char copy[kStreams][V::size * sizeof(float)] = {};
    const auto at = [&](int k) { return static_cast<char*>(streams[k]) + whole * kBytes[k]; };
    const auto run = [&](void* const* data, std::int64_t size, std::int64_t from) {
      [&]<std::size_t... K>(std::index_sequence<K...>) {
        const Place places[] = {Place(keys[K], first + from)...};
        lanes<V>(u, data, size, places, std::index_sequence<K...>{}, std::make_index_sequence<Rule::state.size>{});
      }(std::make_index_sequence<kStreams>{});
    };
    void* copies[kStreams];
    for (int k = 0; k < kStreams; ++k) copies[k] = copy[k];
    for (const bool is_rest : {false, true}) {
      const std::int64_t rest = n - whole;
      if (is_rest && rest == 0) break;
      for (int k = 0; is_rest && k < kStreams; ++k) std::memcpy(copy[k], at(k), rest * kBytes[k]);
      run(is_rest ? copies : streams, is_rest ? V::size : whole, is_rest ? whole : 0);
      for (int k = 0; is_rest && k < kStreams; ++k) {
        if (k != 1) std::memcpy(at(k), copy[k], rest * kBytes[k]);
      }
    }
  }

  template <class V>
  static constexpr FusedStep entry() {
    if constexpr (V::size == 1) {
      return {-1, {}, nullptr};
    } else {
      return {index_of<Rule>(AllRules{}), {F::id...}, step<V>};
    }
  }
};

#else

template <class Rule, class... F>
struct Fused {
  template <class V>
  static constexpr FusedStep entry() {
    return {-1, {}, nullptr};
  }
};

#endif

// Clipping in place; the rules with state in bfloat16 too, then in float32.
using FusedSteps =
    TypeList<Fused<Clip, BFloat16, BFloat16>, Fused<Adam<false>, BFloat16, BFloat16, BFloat16, BFloat16Stochastic>,
             Fused<Adam<false>, BFloat16, BFloat16, Float32, Float32>,
             Fused<Rmsprop<false, false>, BFloat16, BFloat16, BFloat16Stochastic>,
             Fused<SgdMomentum, BFloat16, BFloat16, BFloat16>, Fused<SgdMomentum, BFloat16, BFloat16, Float32>,
             Fused<Lion, BFloat16, BFloat16, BFloat16>, Fused<Lion, BFloat16, BFloat16, Float32>>;
static_assert(FusedSteps::size == kFused);

}  // namespace
}  // namespace fusedstep
