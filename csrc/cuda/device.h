// What the kernels share: finding the tensor of a chunk, walking a strided one, reading and writing any format.
#pragma once
#include <cuda_runtime.h>

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

// Element i of a stream. The format is the same for all threads of a block, so that choosing one by comparison costs
// little: measured as fast as a kernel per format.
template <class T, class F, class... Rest>
__device__ __forceinline__ T decode_one(TypeList<F, Rest...>, Format format, void* data, std::int64_t i) {
  if constexpr (sizeof...(Rest) > 0) {
    if (format != F::id) return decode_one<T>(TypeList<Rest...>{}, format, data, i);
  }
  T x;
  F::decode(global<char>(data) + i * F::item_size, 1, 1, &x);
  return x;
}

template <class T, class F, class... Rest>
__device__ __forceinline__ void encode_one(TypeList<F, Rest...>, Format format, T x, void* data, std::int64_t i) {
  if constexpr (sizeof...(Rest) > 0) {
    if (format != F::id) return encode_one(TypeList<Rest...>{}, format, x, data, i);
  }
  F::encode(&x, 1, global<char>(data) + i * F::item_size, 1);
}

// One element of a tensor, wherever it lies and however it is stored.
template <class T, int kStates>
struct Element {
  const StepEntry& entry;
  void* grad;
  std::int64_t offset[2 + kStates];

  __device__ __forceinline__ Element(const StepEntry& e, const void* table, void* g, std::int64_t i)
      : entry(e), grad(g) {
    locate(e, table, i, offset);
  }
  __device__ __forceinline__ Lane<T> param() const { return decode(0, entry.written[0]); }
  __device__ __forceinline__ Lane<T> gradient() const { return decode(1, grad); }
  __device__ __forceinline__ Lane<T> state(int k) const { return decode(2 + k, entry.written[1 + k]); }
  __device__ __forceinline__ void set_param(Lane<T> x) const { encode(0, entry.written[0], x); }
  __device__ __forceinline__ void set_state(int k, Lane<T> x) const { encode(2 + k, entry.written[1 + k], x); }

 private:
  __device__ __forceinline__ T decode(int k, void* data) const {
    return decode_one<T>(AllFormats{}, entry.format[k], data, offset[k]);
  }
  __device__ __forceinline__ void encode(int k, void* data, Lane<T> x) const {
    encode_one(AllFormats{}, entry.format[k], x.r, data, offset[k]);
  }
};

}  // namespace
}  // namespace fusedstep::cuda
