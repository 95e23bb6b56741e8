// The random numbers of stochastic rounding: a pure function of (seed, step, tensor, stream, index of the element in
// the whole parameter), so that they do not depend on threads, target, device, layout or sharding. Integers only.
//
//   K = mix(mix(mix(seed + phi) ^ step * c) + (8 * tensor + stream) * phi + 1)
//   from index 2^33 on  K = mix(K + (index >> 33))
//   hash = two rounds of xor-shift and multiplication of index / 2, with both halves of K
//
// One hash serves two elements, 16 bits each: element 2i the lower half. `mix` is the finaliser of SplitMix64 (Steele,
// Lea & Flood 2014). With one key for both rounds the numbers of two steps would be shifts of each other; with one
// multiplication neighbours are correlated. Good for rounding, and for nothing else.
#pragma once
#include <cstring>

#include "../base.h"

namespace fusedstep {

inline constexpr std::uint64_t kPhi = 0x9E3779B97F4A7C15u;

FS_INLINE std::uint64_t mix(std::uint64_t z) {
  z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
  z = (z ^ z >> 27) * 0x94D049BB133111EBu;
  return z ^ z >> 31;
}

// Of all tensors of a group with the same step count.
FS_INLINE std::uint64_t step_key(std::uint64_t seed, std::int64_t step) {
  return mix(mix(seed + kPhi) ^ static_cast<std::uint64_t>(step) * 0xD1342543DE82EF95u);
}

// Of one array: stream 0 is the parameter, the state arrays follow.
FS_INLINE std::uint64_t array_key(std::uint64_t step_key, std::int64_t tensor, int stream) {
  return mix(step_key + (8 * static_cast<std::uint64_t>(tensor) + static_cast<std::uint64_t>(stream)) * kPhi + 1);
}

// Neighbouring elements of one array from index `first` on, none of them past the next multiple of 2^33.
struct Place {
  std::uint32_t key[2];
  std::int64_t first;

  FS_INLINE Place(std::uint64_t array_key, std::int64_t first) : first(first) {
    if (first >> 33) array_key = mix(array_key + static_cast<std::uint64_t>(first >> 33));
    key[0] = static_cast<std::uint32_t>(array_key);
    key[1] = static_cast<std::uint32_t>(array_key >> 32);
  }

  // Of the two elements with this index / 2; a Word is one such index or a vector of them.
  template <class Word>
  FS_INLINE Word hash(Word pair) const {
    Word x = pair + key[0];
    x = (x ^ x >> 16) * 0x21f0aaadu;
    x ^= key[1];
    x = (x ^ x >> 15) * 0xd35a2d97u;
    return x ^ x >> 15;
  }
  FS_INLINE std::uint32_t pair_of(std::int64_t index) const { return static_cast<std::uint32_t>(index >> 1); }
  // Of the element i places on.
  FS_INLINE std::uint16_t number(std::int64_t i) const {
    return static_cast<std::uint16_t>(hash(pair_of(first + i)) >> ((first + i) & 1) * 16);
  }
  // Those of n elements, and of neighbours that share a hash with the first and the last.
  template <int kRoom>
  FS_INLINE void draw(std::uint16_t (&to)[kRoom], std::int64_t n) const {
    std::uint32_t hashes[kRoom / 2];
    const std::int64_t pairs = ((first & 1) + n + 1) / 2;
    for (std::int64_t i = 0; i < pairs; ++i) hashes[i] = hash(pair_of(first) + static_cast<std::uint32_t>(i));
    std::memcpy(to, hashes, static_cast<std::size_t>(pairs) * sizeof *hashes);
  }
};

}  // namespace fusedstep
