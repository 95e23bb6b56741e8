// A format that no array has: it differs from the compute types in size and in what it can hold.
#pragma once
#include <cstring>

#include "../../csrc/formats/format.h"

namespace fusedstep {

// The upper 16 bits of a float32, rounded to nearest, ties to even.
struct Upper16 : ElementFormat<Upper16, std::uint16_t> {
  static constexpr Format id = static_cast<Format>(2);
  static constexpr const char* name = "upper16";
  static constexpr Compute compute = Compute::float32;

  template <class T>
  FS_INLINE static T load(std::uint16_t x) {
    const std::uint32_t bits = static_cast<std::uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return static_cast<T>(value);
  }

  FS_INLINE static std::uint16_t store(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
  }
  // By way of the float32 towards zero whose last bit says that something was cut off: so it is rounded only once.
  FS_INLINE static std::uint16_t store(double x) {
    float near = static_cast<float>(x);
    std::uint32_t bits;
    std::memcpy(&bits, &near, sizeof bits);
    const double back = static_cast<double>(near);
    if (x == x && back != x) bits = (bits - ((back < 0 ? -back : back) > (x < 0 ? -x : x))) | 1;
    std::memcpy(&near, &bits, sizeof bits);
    return store(near);
  }
};

using ExtraFormats = TypeList<Upper16>;

}  // namespace fusedstep
