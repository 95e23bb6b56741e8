// Storage types and what they compute in. Today storage and compute type are the same.
#pragma once
#include <cstdint>

namespace fusedstep {

enum class DType : std::uint8_t { float32, float64 };
inline constexpr int kDTypes = 2;

inline constexpr int item_size(DType t) { return t == DType::float32 ? 4 : 8; }
inline constexpr const char* dtype_name(DType t) { return t == DType::float32 ? "float32" : "float64"; }

}  // namespace fusedstep
