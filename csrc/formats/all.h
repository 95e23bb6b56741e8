// Every format, once, and what is known of each.
#pragma once
#include "float32.h"
#include "float64.h"

#if defined(FS_EXTRA_FORMATS)  // a build for tests has more
#include FS_EXTRA_FORMATS
#else
namespace fusedstep {
using ExtraFormats = TypeList<>;
}
#endif

namespace fusedstep {

using AllFormats = Concat<TypeList<Float32, Float64>, ExtraFormats>::type;
inline constexpr int kFormats = AllFormats::size;

struct FormatFacts {
  Format id;
  const char* name;
  Compute compute;
  int item_size, tile;
};

template <class... F>
struct FormatTable;
template <class... F>
struct FormatTable<TypeList<F...>> {
  static constexpr FormatFacts at[] = {{F::id, F::name, F::compute, F::item_size, F::tile}...};
};

inline constexpr const FormatFacts& facts(Format f) { return FormatTable<AllFormats>::at[static_cast<int>(f)]; }
inline constexpr const char* format_name(Format f) { return facts(f).name; }
inline constexpr int item_size(Format f) { return facts(f).item_size; }
// The type that rules compute in, and that norms read, for what is stored like this.
inline constexpr Compute compute_type(Format f) { return facts(f).compute; }
// The format that is the compute type itself: no decoding.
inline constexpr Format plain_format(Compute t) { return static_cast<Format>(t); }

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
