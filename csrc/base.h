// The ground floor: what every other header may use, and nothing of theirs.
#pragma once
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define FS_INLINE __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define FS_INLINE __forceinline
#else
#define FS_INLINE inline __attribute__((always_inline))
#endif

#if defined(_MSC_VER) && !defined(__clang__) && !defined(__CUDACC__)
#include <cmath>
#define __builtin_sqrtf(x) std::sqrt(static_cast<float>(x))
#define __builtin_sqrt(x) std::sqrt(static_cast<double>(x))
#define __builtin_fabsf(x) std::fabs(static_cast<float>(x))
#define __builtin_fabs(x) std::fabs(static_cast<double>(x))
#endif

namespace fusedstep {

// What a rule computes in, whatever its arrays are stored as: float64 for float64 parameters, float32 for all others.
enum class Compute : std::uint8_t { float32, float64 };
inline constexpr int kComputes = 2;
inline constexpr int size_of(Compute t) { return 4 << static_cast<int>(t); }

// At most this many state arrays, and states of one number, of a tensor, and numbers that the tensors of a group share:
// tables and tiles are sized by it.
inline constexpr int kMaxState = 4;
inline constexpr int kMaxScalars = 2;
inline constexpr int kMaxGroupScalars = 4;
// Sums over a tensor that a rule may ask for.
inline constexpr int kMaxSums = 2;
inline constexpr int kMaxStreams = 2 + kMaxState + 2;  // parameter, gradient, state, mask, average

// Rules and formats, as types.
template <class... X>
struct TypeList {
  static constexpr int size = sizeof...(X);
};

template <class... Lists>
struct Concat;
template <class... A>
struct Concat<TypeList<A...>> {
  using type = TypeList<A...>;
};
template <class... A, class... B, class... Rest>
struct Concat<TypeList<A...>, TypeList<B...>, Rest...> {
  using type = typename Concat<TypeList<A..., B...>, Rest...>::type;
};

}  // namespace fusedstep
