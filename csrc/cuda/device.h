// What the kernels share: finding the tensor of a chunk, walking a strided one.
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
__device__ __forceinline__ const Entry& entry_of(const Entry* entries, const BatchHead& head, std::uint32_t chunk) {
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

// Offsets of element i of a layout in the first `kStreams` streams.
template <int kStreams>
__device__ __forceinline__ void locate(const std::int64_t* layout, std::int64_t i, std::int64_t (&offset)[kStreams]) {
  const std::int64_t dims = layout[0];
  for (int k = 0; k < kStreams; ++k) offset[k] = 0;
#pragma unroll 1  // a slow path, and registers are short
  for (std::int64_t d = dims - 1; d >= 0; --d) {
    const std::int64_t index = i % layout[1 + d];
    i /= layout[1 + d];
    for (int k = 0; k < kStreams; ++k) offset[k] += index * layout[1 + dims * (1 + k) + d];
  }
}

}  // namespace
}  // namespace fusedstep::cuda
