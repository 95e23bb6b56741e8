// IEEE binary16, rounded to nearest, ties to even: as F16C and FCVTN do, in integers and one exact float operation
// each way. A NaN is stored as 0x7e00; from 65520 on a value is infinite.
#pragma once
#include "format.h"

namespace fusedstep {

struct Float16 : ElementFormat<Float16, std::uint16_t, float> {
  static constexpr Format id = Format::float16;
  static constexpr const char* name = "float16";

  // The exponent is off by 112, which a multiplication puts right for subnormals too; all ones it stays all ones.
  FS_INLINE static float load(std::uint16_t x) {
    const std::uint32_t shifted = (x & 0x7fffu) << 13;
    const std::uint32_t magnitude = bits_of(float_of(shifted) * 0x1p112f);
    const std::uint32_t special = shifted >= 0x0f800000u ? 0x7f800000u : 0u;
    return float_of(magnitude | special | (x & 0x8000u) << 16);
  }

  // Below 2^-14 the unit in the last place is 2^-24: that of a float32 from 0.5 on, which adding 0.5 makes it.
  FS_INLINE static std::uint16_t store(float x) {
    const std::uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    const std::uint32_t normal = (magnitude + 0xc8000fffu + (magnitude >> 13 & 1u)) >> 13;
    const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - 0x3f000000u;
    const std::uint32_t is_subnormal = 0u - (magnitude < 0x38800000u);  // masks: branches would not be vectorised
    const std::uint32_t finite = (subnormal & is_subnormal) | (normal & ~is_subnormal);
    const std::uint32_t sign = bits >> 16 & 0x8000u;
    const std::uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u | sign;
    const std::uint32_t is_special = 0u - (magnitude >= 0x47800000u);
    return static_cast<std::uint16_t>((special & is_special) | ((finite | sign) & ~is_special));
  }
};

}  // namespace fusedstep
