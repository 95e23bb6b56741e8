// Norms on a GPU: what each chunk adds. A warp reads 128 or 256 neighbouring bytes at a time, an element per thread,
// since that is the order in which the lanes are filled.
#include "sums.h"  // first: the lanes that norm.h works on

#include "../kernels/norm.h"
#include "../kernels/ride.h"
#include "launch.h"

namespace fusedstep::cuda {
namespace {

// What this thread's lane sums up. kUnroll loads are in flight at a time.
template <Norm kNorm, class T, int kUnroll, class At>
__device__ __forceinline__ double lane_sum(int n, const At& at) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Wide acc = Wide::zero();
  if (n == kNormBlock) {
#pragma unroll kUnroll
    for (int row = 0; row < kNormBlock / kWarp; ++row) acc = accumulate<kNorm, T>(acc, at(row * kWarp + lane));
  } else {
    // Zeros past the end, which add nothing: so all lanes stay together and the loads need not wait for each other.
#pragma unroll kUnroll
    for (int first = 0; first < n; first += kWarp) {
      acc = accumulate<kNorm, T>(acc, first + lane < n ? at(first + lane) : Wide::zero());
    }
  }
  return acc.r;
}

// Element i of the gradient, 0 where a mask leaves it out.
template <class T>
__device__ __forceinline__ double kept_element(const NormEntry& e, const void* table, void* g, std::int64_t i) {
  std::int64_t offset[2];
  locate(e, table, i, offset);
  const bool keep = e.nonzero ? is_nonzero(Lane<T>(decode_one<FormatsOf<T>, T>(e.kept_format, e.kept, offset[1]))).r > 0
                              : global<std::uint8_t>(e.kept)[offset[1]] != 0;
  return keep ? static_cast<double>(decode_one<FormatsOf<T>, T>(e.format, g, offset[0])) : 0.0;
}

template <Norm kNorm, class T, bool kMasked, class A>
__device__ __forceinline__ void norm_all(const A& args) {
  const NormHead& head = args.head;
  const NormEntry* const entries = resolve<NormEntry>(args, head.entries);
  for (std::uint32_t chunk = blockIdx.x; chunk < head.chunks; chunk += gridDim.x) {
    const NormEntry& e = entry_of(entries, head, chunk);
    void* const g = resolve<void*>(args, head.grads)[&e - entries];
    const WarpBlock block(e, chunk);
    double sum = 0.0;
    if constexpr (kMasked) {
      sum =
          lane_sum<kNorm, T, 4>(block.n, [&](int i) { return Wide{kept_element<T>(e, entries, g, block.begin + i)}; });
    } else if (e.layout < 0) {
      with_format(FormatsOf<T>{}, e.format, [&](auto of) {
        using F = typename decltype(of)::type;
        const auto* const x = global<typename F::Stored>(g) + block.begin;
        sum = lane_sum<kNorm, T, 16>(block.n, [=](int i) { return Wide{static_cast<double>(F::load(x[i]))}; });
      });
    } else {
      sum = lane_sum<kNorm, T, 1>(block.n, [&](int i) {
        std::int64_t offset[1];
        locate(e, entries, block.begin + i, offset);
        return Wide{static_cast<double>(decode_one<FormatsOf<T>, T>(e.format, g, offset[0]))};
      });
    }
    sum = chunk_sum<kNorm>(sum);
    if (threadIdx.x == 0) head.sums[chunk] = sum;
  }
}

template <Norm kNorm, class T, bool kMasked, int kBytes>
__global__ void __launch_bounds__(kThreads, 4) norm_kernel(const __grid_constant__ Args<NormHead, kBytes> args) {
  norm_all<kNorm, T, kMasked>(args);
}

template <Norm kNorm, class T, bool kMasked>
constexpr KernelPair both_sizes() {
  return {kernel_of<NormHead, kSmallArgs, norm_kernel<kNorm, T, kMasked, kSmallArgs>>(),
          kernel_of<NormHead, kLargeArgs, norm_kernel<kNorm, T, kMasked, kLargeArgs>>()};
}

template <Norm kNorm>
const KernelPair& pick(Compute compute, bool masked) {
  static const KernelPair kernels[kComputes][2] = {
      {both_sizes<kNorm, float, false>(), both_sizes<kNorm, float, true>()},
      {both_sizes<kNorm, double, false>(), both_sizes<kNorm, double, true>()}};
  return kernels[static_cast<int>(compute)][masked];
}

}  // namespace

const KernelPair& norm_kernel_of(Norm norm, Compute compute, bool masked) {
  return norm == Norm::one   ? pick<Norm::one>(compute, masked)
         : norm == Norm::two ? pick<Norm::two>(compute, masked)
                             : pick<Norm::inf>(compute, masked);
}

}  // namespace fusedstep::cuda
