// How the elements of an array are stored. What every header in formats/ provides:
//
//   struct Name {
//     static constexpr Format id = Format::name;
//     static constexpr const char* name = "name";
//     static constexpr Compute compute = ...;   what rules compute in for a parameter that is stored like this
//     static constexpr int item_size = ...;   bytes
//     static constexpr int tile = ...;        elements that are decoded at a time
//     template <class T>
//     FS_INLINE static void decode(const void* from, std::int64_t stride, std::int64_t n, T* to);
//     template <class T>
//     FS_INLINE static void encode(const T* from, std::int64_t n, void* to, std::int64_t stride);
//   };
//
// T is float or double. A value that the other side cannot hold is rounded once, ties to even. A format knows no rule
// and no other format.
#pragma once
#include "../base.h"

namespace fusedstep {

// In the order of all.h: the compute types first.
enum class Format : std::uint8_t { float32, float64 };

// For a format whose elements are Stored one by one. One that is no arithmetic type gives load<T>() and store() of its
// own.
template <class Name, class Stored>
struct ElementFormat {
  static constexpr int item_size = sizeof(Stored);
  static constexpr int tile = 512;

  template <class T>
  FS_INLINE static T load(Stored x) {
    return static_cast<T>(x);
  }
  template <class T>
  FS_INLINE static Stored store(T x) {
    return static_cast<Stored>(x);
  }

  template <class T>
  FS_INLINE static void decode(const void* from, std::int64_t stride, std::int64_t n, T* to) {
    const Stored* const x = static_cast<const Stored*>(from);
    if (stride == 1) {
      for (std::int64_t i = 0; i < n; ++i) to[i] = Name::template load<T>(x[i]);
    } else {
      for (std::int64_t i = 0; i < n; ++i) to[i] = Name::template load<T>(x[i * stride]);
    }
  }

  template <class T>
  FS_INLINE static void encode(const T* from, std::int64_t n, void* to, std::int64_t stride) {
    Stored* const x = static_cast<Stored*>(to);
    if (stride == 1) {
      for (std::int64_t i = 0; i < n; ++i) x[i] = Name::store(from[i]);
    } else {
      for (std::int64_t i = 0; i < n; ++i) x[i * stride] = Name::store(from[i]);
    }
  }
};

}  // namespace fusedstep
