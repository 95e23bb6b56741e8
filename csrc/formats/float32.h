// IEEE binary32, the compute type of all formats but float64.
#pragma once
#include "format.h"

namespace fusedstep {

struct Float32 : ElementFormat<Float32, float, float> {
  static constexpr Format id = Format::float32;
  static constexpr const char* name = "float32";
  FS_INLINE static float load(float x) { return x; }
  FS_INLINE static float store(float x) { return x; }
};

}  // namespace fusedstep
