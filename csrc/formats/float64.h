// IEEE binary64, the compute type of itself alone.
#pragma once
#include "format.h"

namespace fusedstep {

struct Float64 : ElementFormat<Float64, double> {
  static constexpr Format id = Format::float64;
  static constexpr const char* name = "float64";
  static constexpr Compute compute = Compute::float64;
};

}  // namespace fusedstep
