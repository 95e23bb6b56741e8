// What the kernels share: finding the tensor of a chunk, walking a strided one, reading and writing any format.
#pragma once
#include <cuda_runtime.h>

#include <type_traits>

#include "../vec/scalar.h"
#include "args.h"

namespace fusedstep::cuda {
namespace {

// An address read from a table could be of any memory, as far as the compiler knows: told that it is global, it loads
// with LDG instead of the generic LD.
template <class T>
__device__ __forceinline__ T* global(void* at) {
  __builtin_assume(__isGlobal(at));
  return static_cast<T*>(at);
}

// The entry that has this chunk. A search is ten loads that wait for each other, much of the time of a small tensor.
template <class E>
__device__ __forceinline__ const E& entry_of(const E* entries, const TableHead& head, std::uint32_t chunk) {
  if (head.one_each) return entries[chunk];
  std::uint32_t low = 0, high = head.tensors;  // in [low, high)
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (entries[middle].first_chunk <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return entries[low];
}

// Where element i is in each stream of a tensor whose entry is in this table.
template <int kStreams>
__device__ __forceinline__ void locate(const Entry& e, const void* table, std::int64_t i,
                                       std::int64_t (&offset)[kStreams]) {
  for (int k = 0; k < kStreams; ++k) offset[k] = e.layout < 0 ? i : 0;
  if (e.layout < 0) return;
  const std::int64_t* const layout = static_cast<const std::int64_t*>(table) + e.layout;
  const std::int64_t dims = layout[0];
#pragma unroll 1  // a slow path, and registers are short
  for (std::int64_t d = dims - 1; d >= 0; --d) {
    const std::int64_t index = i % layout[1 + d];
    i /= layout[1 + d];
    for (int k = 0; k < kStreams; ++k) offset[k] += index * layout[1 + dims * (1 + k) + d];
  }
}

// Where it is in stream k.
__device__ __forceinline__ std::int64_t locate_in(const Entry& e, const void* table, int k, std::int64_t i) {
  if (e.layout < 0) return i;
  const std::int64_t* const layout = static_cast<const std::int64_t*>(table) + e.layout;
  const std::int64_t dims = layout[0];
  std::int64_t offset = 0;
#pragma unroll 1
  for (std::int64_t d = dims - 1; d >= 0; --d) {
    offset += i % layout[1 + d] * layout[1 + dims * (1 + k) + d];
    i /= layout[1 + d];
  }
  return offset;
}

template <class F>
struct OfFormat {
  using type = F;
};

// Formats of the streams of a kernel.
template <class T, class F, class... Rest>
constexpr auto formats_of(TypeList<F, Rest...>) {
  using Own = std::conditional_t<std::is_same_v<T, typename F::Value>, TypeList<F>, TypeList<>>;
  if constexpr (sizeof...(Rest) == 0) {
    return Own{};
  } else {
    return typename Concat<Own, decltype(formats_of<T>(TypeList<Rest...>{}))>::type{};
  }
}
template <class T>
using FormatsOf = decltype(formats_of<T>(NumberFormats{}));  // all that are decoded to a T
template <class T>
using Plain = TypeList<std::conditional_t<sizeof(T) == 4, Float32, Float64>>;  // T itself alone

// f(OfFormat<F>) for the format of that name. It is the same for all threads of a block, so that choosing it by
// comparison costs little: measured as fast as a kernel per format.
template <class Fn, class F, class... Rest>
__device__ __forceinline__ void with_format(TypeList<F, Rest...>, Format format, const Fn& f) {
  if constexpr (sizeof...(Rest) > 0) {
    if (format != F::id) return with_format(TypeList<Rest...>{}, format, f);
  }
  f(OfFormat<F>{});
}

// kWidth neighbours in the bits of their format: 16 or 32 each.
template <int kWidth>
struct Raw {
  static constexpr int kHalf = kWidth * 2 / 16;
  struct alignas(16) Part {
    std::uint32_t bits[4];
  };
  Part part[2 * kHalf];

  // No more is asked of the format than its size, and nothing is done with what is read: so the loads of one stream
  // need not wait for those of another.
  __device__ __forceinline__ void load(const void* data, bool wide) {
    const Part* const from = static_cast<const Part*>(data);
#pragma unroll
    for (int k = 0; k < kHalf; ++k) part[k] = from[k];
    if (!wide) return;
#pragma unroll
    for (int k = kHalf; k < 2 * kHalf; ++k) part[k] = from[k];
  }
  __device__ __forceinline__ void store(void* data, bool wide) const {
    Part* const to = static_cast<Part*>(data);
#pragma unroll
    for (int k = 0; k < kHalf; ++k) to[k] = part[k];
    if (!wide) return;
#pragma unroll
    for (int k = kHalf; k < 2 * kHalf; ++k) to[k] = part[k];
  }

  template <class Formats, class T>
  __device__ __forceinline__ void decode(Format format, T (&to)[kWidth]) const {
    with_format(Formats{}, format, [&](auto of) {
      using F = typename decltype(of)::type;
      typename F::Stored x[kWidth];
      std::memcpy(x, part, sizeof x);
#pragma unroll
      for (int k = 0; k < kWidth; ++k) to[k] = F::load(x[k]);
    });
  }
  // The first of them is even in its array, at place_of().
  template <class Formats, class T, class PlaceOf>
  __device__ __forceinline__ void encode(Format format, const T (&from)[kWidth], const PlaceOf& place_of) {
    with_format(Formats{}, format, [&](auto of) {
      using F = typename decltype(of)::type;
      typename F::Stored x[kWidth];
      if constexpr (F::draws) {
        const Place place = place_of();
#pragma unroll
        for (int k = 0; k < kWidth; k += 2) {
          const std::uint32_t hash = place.hash(place.pair_of(place.first + k));
          x[k] = F::store(from[k], static_cast<std::uint16_t>(hash));
          x[k + 1] = F::store(from[k + 1], static_cast<std::uint16_t>(hash >> 16));
        }
      } else {
#pragma unroll
        for (int k = 0; k < kWidth; ++k) x[k] = F::store(from[k]);
      }
      std::memcpy(part, x, sizeof x);
    });
  }
};

// Element i of a stream, wherever that is.
template <class Formats, class T>
__device__ __forceinline__ T decode_one(Format format, void* data, std::int64_t i) {
  T x;
  with_format(Formats{}, format, [&](auto of) {
    using F = typename decltype(of)::type;
    x = F::load(global<typename F::Stored>(data)[i]);
  });
  return x;
}

template <class Formats, class T, class PlaceOf>
__device__ __forceinline__ void encode_one(Format format, T x, void* data, std::int64_t i, const PlaceOf& place_of) {
  with_format(Formats{}, format, [&](auto of) {
    using F = typename decltype(of)::type;
    typename F::Stored* const to = global<typename F::Stored>(data) + i;
    if constexpr (F::draws) {
      *to = F::store(x, place_of().number(0));
    } else {
      *to = F::store(x);
    }
  });
}

// What the streams of a chunk have in common for its elements, in shared memory: read from the table it would be read
// anew after every store, and registers are short. The keys of random numbers take tens of instructions.
struct ChunkStreams {
  void* data[kMaxStreams];
  std::uint64_t key[kMaxStreams];
  Format format[kMaxStreams];
  std::int64_t origin;

  // `i`: its place, less the origin.
  __device__ __forceinline__ Place place(int stream, std::int64_t i) const { return Place(key[stream], origin + i); }
};

// Those of this entry, made by a thread each. By all threads of a block.
template <int kStreams>
__device__ __forceinline__ const ChunkStreams& streams_of(const StepEntry& entry, void* grad, std::uint64_t step_key) {
  __shared__ ChunkStreams streams;
  __syncthreads();  // the chunk before has been seen to
  if (threadIdx.x < kStreams) {
    const int k = static_cast<int>(threadIdx.x);
    streams.data[k] = k == 1 ? grad : entry.written[k > 1 ? k - 1 : 0];
    streams.key[k] = array_key(step_key, entry.id, k == 0 ? 0 : k - 1);
    streams.format[k] = entry.format[k];
    if (k == 0) streams.origin = entry.origin;
  }
  __syncthreads();
  return streams;
}

// Element i of every stream, wherever it lies.
template <class Formats, class T, int kStates>
struct Element {
  const ChunkStreams& streams;
  const Entry& entry;
  const void* table;
  std::int64_t index;
  std::int64_t offset[2 + kStates];

  __device__ __forceinline__ Element(const ChunkStreams& streams, const Entry& e, const void* table, std::int64_t i)
      : streams(streams), entry(e), table(table), index(i) {
    locate(e, table, i, offset);
  }
  __device__ __forceinline__ Lane<T> get(int k) const {
    return decode_one<Formats, T>(streams.format[k], streams.data[k], offset[k]);
  }
  // Its place among the random numbers is looked up where it is needed: registers are short.
  __device__ __forceinline__ void set(int k, Lane<T> x) const {
    encode_one<Formats>(streams.format[k], x.r, streams.data[k], offset[k],
                        [&] { return streams.place(k, locate_in(entry, table, 2 + kStates, index)); });
  }
};

}  // namespace
}  // namespace fusedstep::cuda
