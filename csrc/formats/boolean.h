// Masks: a byte per element, read as 0 or 1 of the compute type. Nothing writes them.
#pragma once
#include "format.h"

namespace fusedstep {

template <class Name, class Value>
struct BooleanFormat : ElementFormat<Name, std::uint8_t, Value> {
  FS_INLINE static Value load(std::uint8_t x) { return x != 0 ? Value(1) : Value(0); }
  FS_INLINE static std::uint8_t store(Value x) { return x != Value(0); }
};

struct Boolean : BooleanFormat<Boolean, float> {
  static constexpr Format id = Format::boolean;
  static constexpr const char* name = "bool";
};

// Beside float64.
struct BooleanWide : BooleanFormat<BooleanWide, double> {
  static constexpr Format id = Format::boolean_wide;
  static constexpr const char* name = "bool_wide";
};

}  // namespace fusedstep
