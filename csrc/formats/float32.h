// IEEE binary32, the compute type of all formats but float64.
#pragma once
#include "format.h"

namespace fusedstep {

struct Float32 : ElementFormat<Float32, float> {
  static constexpr Format id = Format::float32;
  static constexpr const char* name = "float32";
  static constexpr Compute compute = Compute::float32;
};

}  // namespace fusedstep
