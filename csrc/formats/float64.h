// IEEE binary64, the compute type of itself alone.
#pragma once
#include "format.h"

namespace fusedstep {

struct Float64 : ElementFormat<Float64, double, double> {
  static constexpr Format id = Format::float64;
  static constexpr const char* name = "float64";
  FS_INLINE static double load(double x) { return x; }
  FS_INLINE static double store(double x) { return x; }
};

}  // namespace fusedstep
