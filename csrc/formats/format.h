// How the elements of an array are stored. What every header in formats/ provides:
//
//   struct Name {
//     static constexpr Format id = Format::name;
//     static constexpr const char* name = "name";
//     static constexpr int item_size = ...;   bytes
//     static constexpr int tile = ...;        elements that are decoded at a time
//     static constexpr bool draws = ...;      whether it rounds with random numbers
//     using Value = ...;                      float or double: what rules compute in beside it
//     FS_INLINE static void decode(const void* from, std::int64_t stride, std::int64_t n, Value* to);
//     FS_INLINE static void encode(const Value* from, std::int64_t n, void* to, std::int64_t stride, const Place&);
//   };
//
// A value that it cannot hold is rounded once, ties to even, or with the random numbers of its place. A format knows no
// rule and no other format. At most a tile is encoded at a time.
#pragma once
#include <type_traits>

#include "random.h"

namespace fusedstep {

// In the order of all.h: the compute types first.
enum class Format : std::uint8_t { float32, float64, bfloat16, float16, bfloat16_stochastic, boolean, boolean_wide };

FS_INLINE std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
FS_INLINE float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// For a format whose elements are `Stored_` one by one, through load(Stored) and store(Value) of its own, or
// store(Value, random) with 16 random bits.
template <class Name, class Stored_, class Value_>
struct ElementFormat {
  using Stored = Stored_;
  using Value = Value_;
  static constexpr int item_size = sizeof(Stored);
  static constexpr int tile = 512;
  static constexpr bool draws = false;

  FS_INLINE static void decode(const void* from, std::int64_t stride, std::int64_t n, Value* to) {
    const Stored* const x = static_cast<const Stored*>(from);
    if constexpr (std::is_same_v<Stored, Value>) return gather(x, stride, n, to);
    for (std::int64_t done = 0, size; done < n; done += size) {
      size = stride == 1 || n - done < tile ? n - done : tile;
      Stored near[tile];
      if (stride != 1) gather(x + done * stride, stride, size, near);
      const Stored* const from_here = stride == 1 ? x : near;
      for (std::int64_t i = 0; i < size; ++i) to[done + i] = Name::load(from_here[i]);
    }
  }

  FS_INLINE static void encode(const Value* from, std::int64_t n, void* to, std::int64_t stride, const Place& place) {
    Stored* const x = static_cast<Stored*>(to);
    if constexpr (std::is_same_v<Stored, Value>) return scatter(from, n, x, stride);
    Stored near[tile];
    Stored* const out = stride == 1 ? x : near;
    if constexpr (Name::draws) {
      // All numbers first, and as they lie in memory: both loops are then vectorised.
      std::uint16_t random[tile + 2];
      place.draw(random, n);
      const std::uint16_t* const own = random + (place.first & 1);
      for (std::int64_t i = 0; i < n; ++i) out[i] = Name::store(from[i], own[i]);
    } else {
      for (std::int64_t i = 0; i < n; ++i) out[i] = Name::store(from[i]);
    }
    if (stride != 1) scatter(near, n, x, stride);
  }

 private:
  FS_INLINE static void gather(const Stored* from, std::int64_t stride, std::int64_t n, Stored* to) {
    if (stride == 1) {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof *to);
    } else {
      for (std::int64_t i = 0; i < n; ++i) to[i] = from[i * stride];
    }
  }
  FS_INLINE static void scatter(const Stored* from, std::int64_t n, Stored* to, std::int64_t stride) {
    if (stride == 1) {
      std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof *to);
    } else {
      for (std::int64_t i = 0; i < n; ++i) to[i * stride] = from[i];
    }
  }
};

}  // namespace fusedstep
