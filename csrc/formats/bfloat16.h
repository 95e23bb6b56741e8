// bfloat16: the upper 16 bits of a binary32, rounded to nearest, ties to even, or stochastically. A NaN is stored as
// 0x7fc0. In integers throughout: VCVTNEPS2BF16 flushes subnormals.
//
// Stochastically, a value goes to either neighbour with the odds of its distance to the other: 16 random bits are added
// to the 16 that are cut off. A running mean of squares needs that: with beta2 = 0.999 its change is less than half the
// spacing of bfloat16, and rounded to nearest it would never decay. What bfloat16 can hold does not move.
#pragma once
#include "format.h"

namespace fusedstep {

struct BFloat16 : ElementFormat<BFloat16, std::uint16_t, float> {
  static constexpr Format id = Format::bfloat16;
  static constexpr const char* name = "bfloat16";

  FS_INLINE static float load(std::uint16_t x) { return float_of(static_cast<std::uint32_t>(x) << 16); }
  // `added` to the bits before all but the upper 16 are cut off: as much as makes it the rounding that is meant.
  FS_INLINE static std::uint16_t cut(std::uint32_t bits, std::uint32_t added) {
    const std::uint32_t rounded = (bits + added) >> 16;
    return static_cast<std::uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
  }
  FS_INLINE static std::uint16_t store(float x) {
    const std::uint32_t bits = bits_of(x);
    return cut(bits, 0x7fffu + (bits >> 16 & 1u));
  }
};

struct BFloat16Stochastic : ElementFormat<BFloat16Stochastic, std::uint16_t, float> {
  static constexpr Format id = Format::bfloat16_stochastic;
  static constexpr const char* name = "bfloat16_stochastic";
  static constexpr bool draws = true;

  FS_INLINE static float load(std::uint16_t x) { return BFloat16::load(x); }
  FS_INLINE static std::uint16_t store(float x, std::uint16_t random) { return BFloat16::cut(bits_of(x), random); }
};

}  // namespace fusedstep
