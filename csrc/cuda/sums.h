// Sums on a GPU, in the fixed shape of kernels/table.h: a warp is the 32 virtual lanes of a norm block, the eight warps
// of a block are the eight norm blocks of a chunk.
#pragma once
#include "../kernels/fold.h"
#include "device.h"

namespace fusedstep::cuda {
namespace {

constexpr int kWarp = 32, kWarps = kThreads / kWarp;
static_assert(kNormLanes == kWarp && kWarps * kNormBlock == kChunk);
constexpr unsigned kAll = 0xffffffffu;

// The norm block of this thread's warp: its first element, and how many there are of a tensor of so many.
struct WarpBlock {
  std::int64_t begin;
  int n;

  __device__ __forceinline__ WarpBlock(const Entry& e, std::uint32_t chunk)
      : begin(static_cast<std::int64_t>(chunk - e.first_chunk) * kChunk + threadIdx.x / kWarp * kNormBlock) {
    const std::int64_t rest = e.numel - begin;
    n = static_cast<int>(rest < 0 ? 0 : rest < kNormBlock ? rest : kNormBlock);
  }
};

// From lanes to the sum of the whole block, in thread 0. By all threads.
template <Norm kNorm>
__device__ __forceinline__ double chunk_sum(double lane_sum) {
  __shared__ double of_warp[kWarps];
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  double sum = lane_sum;
  for (int half = kWarp / 2; half > 0; half /= 2) sum = fold<kNorm>(sum, __shfl_down_sync(kAll, sum, half));
  if (lane == 0) of_warp[warp] = sum;
  __syncthreads();
  if (warp == 0) {
    sum = lane < kWarps ? of_warp[lane] : 0.0;
    for (int apart = 1; apart < kWarps; apart *= 2) sum = fold<kNorm>(sum, __shfl_down_sync(kAll, sum, apart));
  }
  __syncthreads();
  return sum;
}

// A warp's tree over group k of 32 neighbours, neighbours first, missing ones zero: the sum, in lane 0. It is to go to
// x[k].
__device__ __forceinline__ double group_sum(Norm kind, const double* x, std::uint32_t n, std::uint32_t group) {
  const std::uint32_t i = group * kWarp + threadIdx.x % kWarp;
  double sum = i < n ? x[i] : 0.0;
  for (int apart = 1; apart < kWarp; apart *= 2) sum = fold(kind, sum, __shfl_down_sync(kAll, sum, apart));
  return sum;
}

// By one warp. A group's sum lands in a place that this or an earlier group has read.
__device__ __forceinline__ void warp_fold(Norm kind, double* x, std::uint32_t n) {
  for (; n > 1; n = (n + kWarp - 1) / kWarp) {
    for (std::uint32_t group = 0; group * kWarp < n; ++group) {
      const double sum = group_sum(kind, x, n, group);
      if (threadIdx.x % kWarp == 0) x[group] = sum;
      __syncwarp();
    }
  }
}

// By the whole block, which takes as many groups at a time as it has warps: all read before any writes.
__device__ __forceinline__ void block_fold(Norm kind, double* x, std::uint32_t n) {
  const std::uint32_t warp = threadIdx.x / kWarp, warps = kFinishThreads / kWarp, lane = threadIdx.x % kWarp;
  for (; n > 1; n = (n + kWarp - 1) / kWarp) {
    for (std::uint32_t first = 0; first * kWarp < n; first += warps) {
      const std::uint32_t group = first + warp;
      const double sum = group_sum(kind, x, n, group);
      __syncthreads();
      if (lane == 0 && group * kWarp < n) x[group] = sum;
      __syncthreads();
    }
  }
}

}  // namespace
}  // namespace fusedstep::cuda
