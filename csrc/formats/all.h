// Every format, once, and what is known of each.
#pragma once
#include <type_traits>

#include "bfloat16.h"
#include "boolean.h"
#include "float16.h"
#include "float32.h"
#include "float64.h"

namespace fusedstep {

using NumberFormats = TypeList<Float32, Float64, BFloat16, Float16, BFloat16Stochastic>;
using AllFormats = Concat<NumberFormats, TypeList<Boolean, BooleanWide>>::type;
inline constexpr int kFormats = AllFormats::size;

template <class F>
inline constexpr Compute compute_of = std::is_same_v<typename F::Value, double> ? Compute::float64 : Compute::float32;

struct FormatFacts {
  Format id;
  const char* name;
  Compute compute;
  int item_size, tile;
  bool draws;
};

template <class... F>
struct FormatTable;
template <class... F>
struct FormatTable<TypeList<F...>> {
  static constexpr FormatFacts at[] = {{F::id, F::name, compute_of<F>, F::item_size, F::tile, F::draws}...};
};

inline constexpr const FormatFacts& facts(Format f) { return FormatTable<AllFormats>::at[static_cast<int>(f)]; }
inline constexpr const char* format_name(Format f) { return facts(f).name; }
inline constexpr int item_size(Format f) { return facts(f).item_size; }
// The type that rules compute in, and that norms read, for what is stored like this.
inline constexpr Compute compute_type(Format f) { return facts(f).compute; }
// The format that is the compute type itself: no decoding.
inline constexpr Format plain_format(Compute t) { return static_cast<Format>(t); }
// The one that stores the same, rounded stochastically; of what needs no rounding, itself.
inline constexpr Format stochastic(Format f) { return f == Format::bfloat16 ? Format::bfloat16_stochastic : f; }
// Of a mask beside what is computed in that type.
inline constexpr Format mask_format(Compute t) {
  return t == Compute::float64 ? Format::boolean_wide : Format::boolean;
}

// Of the formats beside float32: 4 bytes rather than 2.
FS_INLINE constexpr bool is_wide(Format f) { return f == Format::float32; }

constexpr bool formats_are_in_order() {
  for (int k = 0; k < kFormats; ++k) {
    if (static_cast<int>(FormatTable<AllFormats>::at[k].id) != k) return false;
  }
  return true;
}
static_assert(formats_are_in_order());
static_assert(plain_format(Compute::float32) == Format::float32 && plain_format(Compute::float64) == Format::float64);

// Of a tile of any format.
constexpr int largest_tile() {
  int largest = 0;
  for (const FormatFacts& f : FormatTable<AllFormats>::at) largest = f.tile > largest ? f.tile : largest;
  return largest;
}

}  // namespace fusedstep
