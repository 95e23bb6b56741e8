// How the elements of an array are stored. A format knows no rule and no other format.
#pragma once
#include "../base.h"

namespace fusedstep {

enum class Format : std::uint8_t { float32, float64 };

inline constexpr int item_size(Format f) { return f == Format::float32 ? 4 : 8; }
// The type that rules compute in, and that norms read, for what is stored like this.
inline constexpr DType compute_type(Format f) { return f == Format::float64 ? DType::float64 : DType::float32; }
// The format that is the compute type itself: no decoding.
inline constexpr Format plain_format(DType t) { return t == DType::float64 ? Format::float64 : Format::float32; }

inline constexpr const char* format_name(Format f) { return f == Format::float32 ? "float32" : "float64"; }

}  // namespace fusedstep
