// Norms on a GPU, in the fixed shape of kernels/table.h: a warp is the 32 virtual lanes of a norm block, the eight
// warps of a block are the eight norm blocks of a chunk. A warp reads 128 or 256 neighbouring bytes at a time, an
// element per thread, since that is the order in which the lanes are filled. Then one block folds the trees, and
// prepares in float64 what the step needs of the norm, of step counts and of learning rates that live on the device.
#include "device.h"  // first: the lanes that norm.h works on

#include "../kernels/norm.h"
#include "launch.h"

namespace fusedstep::cuda {
namespace {

constexpr int kWarp = 32;
static_assert(kNormLanes == kWarp && kThreads / kWarp * kNormBlock == kChunk);
constexpr unsigned kAll = 0xffffffffu;

__device__ __forceinline__ double fold_any(Norm kind, double a, double b) {
  return kind == Norm::inf ? fold<Norm::inf>(a, b) : fold<Norm::two>(a, b);
}

// ------------------------------------------------------------------------------------------------------- chunk sums

// kUnroll loads are in flight at a time.
template <Norm kNorm, int kUnroll, class At>
__device__ __forceinline__ double warp_block(int n, const At& at) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Wide acc = Wide::zero();
  if (n == kNormBlock) {
#pragma unroll kUnroll
    for (int row = 0; row < kNormBlock / kWarp; ++row) {
      acc = accumulate<kNorm>(acc, Wide::load(at(row * kWarp + lane)));
    }
  } else {
    // Zeros past the end, which add nothing: so all lanes stay together and the loads need not wait for each other.
#pragma unroll kUnroll
    for (int first = 0; first < n; first += kWarp) {
      acc = accumulate<kNorm>(acc, first + lane < n ? Wide::load(at(first + lane)) : Wide::zero());
    }
  }
  double sum = acc.r;
  for (int half = kWarp / 2; half > 0; half /= 2) sum = fold<kNorm>(sum, __shfl_down_sync(kAll, sum, half));
  return sum;
}

template <Norm kNorm, class T, class A>
__device__ __forceinline__ void norm_all(const A& args) {
  __shared__ double block_sum[kThreads / kWarp];
  const BatchHead& head = args.head;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const Entry* const entries = resolve<Entry>(args, head.entries);
  for (std::uint32_t chunk = blockIdx.x; chunk < head.chunks; chunk += gridDim.x) {
    const Entry& e = entry_of(entries, head, chunk);
    if (e.sum < 0) continue;
    const T* const g = global<T>(resolve<void*>(args, head.grads)[&e - entries]);
    const std::int64_t begin = static_cast<std::int64_t>(chunk - e.first_chunk) * kChunk + warp * kNormBlock;
    const std::int64_t rest = e.numel - begin;
    const int n = static_cast<int>(rest < 0 ? 0 : rest < kNormBlock ? rest : kNormBlock);
    double sum;
    if (e.norm_layout < 0) {
      sum = warp_block<kNorm, 16>(n, [=](int i) { return g + begin + i; });
    } else {
      const std::int64_t* const layout = reinterpret_cast<const std::int64_t*>(entries) + e.norm_layout;
      sum = warp_block<kNorm, 1>(n, [=](int i) {
        std::int64_t offset[1];
        locate(layout, begin + i, offset);
        return g + offset[0];
      });
    }
    if (lane == 0) block_sum[warp] = sum;
    __syncthreads();
    if (warp == 0) {
      sum = lane < kThreads / kWarp ? block_sum[lane] : 0.0;
      for (int apart = 1; apart < kThreads / kWarp; apart *= 2) {
        sum = fold<kNorm>(sum, __shfl_down_sync(kAll, sum, apart));
      }
      if (lane == 0) head.sums[chunk] = sum;
    }
    __syncthreads();
  }
}

template <Norm kNorm, class T, int kBytes>
__global__ void __launch_bounds__(kThreads, 4) norm_kernel(const __grid_constant__ Args<BatchHead, kBytes> args) {
  norm_all<kNorm, T>(args);
}

// ------------------------------------------------------------------------------------- folding and preparing

// A warp's tree over group k of 32 neighbours, neighbours first, missing ones zero: the sum, in lane 0. It is to go to
// x[k].
__device__ __forceinline__ double group_sum(Norm kind, const double* x, std::uint32_t n, std::uint32_t group) {
  const std::uint32_t i = group * kWarp + threadIdx.x % kWarp;
  double sum = i < n ? x[i] : 0.0;
  for (int apart = 1; apart < kWarp; apart *= 2) sum = fold_any(kind, sum, __shfl_down_sync(kAll, sum, apart));
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

__device__ __forceinline__ double finish_norm(const FinishHead& head, double sum, double scale) {
  return (head.kind == Norm::two ? __builtin_sqrt(sum) : sum) / scale;
}

// Whether the step is skipped, told to the step kernels and the report by one thread.
__device__ __forceinline__ bool report_and_skip(const FinishHead& head) {
  const double norm = head.has_norm && !head.per_tensor ? head.sums[0] : 0.0;
  const bool finite = norm - norm == 0.0;
  const bool skips =
      head.skips || (head.skip_nonfinite && !finite) || (head.found_inf.at && head.found_inf.read() != 0.0);
  if (threadIdx.x == 0) {
    if (head.skip) *head.skip = skips ? 1.0 : 0.0;
    if (head.report) {
      const double coefficient = head.has_norm ? clip_coefficient(norm, head.least_max_norm) : 1.0;
      if (head.has_norm) head.report[1] = coefficient;
      if (skips) {
        head.report[3] += 1.0;
      } else if (coefficient < 1.0) {
        head.report[2] += 1.0;
      }
    }
  }
  return skips;
}

template <int kBytes>
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel_of(const __grid_constant__ Args<FinishHead, kBytes> args) {
  const FinishHead& head = args.head;
  const std::uint32_t warp = threadIdx.x / kWarp;
  const double scale = head.grad_scale.at ? head.grad_scale.read() : head.scale;
  if (head.fold) {
    const Fold* const folds = resolve<Fold>(args, head.folds);
    for (std::uint32_t k = 0; k < head.large; ++k)
      block_fold(head.kind, head.chunk_sums + folds[k].first, folds[k].count);
    for (std::uint32_t k = head.large + warp; k < head.fold_count; k += kFinishThreads / kWarp) {
      warp_fold(head.kind, head.chunk_sums + folds[k].first, folds[k].count);
    }
    __syncthreads();
    for (std::uint32_t k = threadIdx.x; k < head.fold_count; k += kFinishThreads) {
      head.sums[folds[k].into] = folds[k].count > 0 ? head.chunk_sums[folds[k].first] : 0.0;
    }
    __syncthreads();
  }
  if (head.total) {
    if (head.per_tensor) {
      for (std::uint32_t k = threadIdx.x; k < head.sum_count; k += kFinishThreads) {
        head.sums[k] = finish_norm(head, head.sums[k], scale);
        if (head.norm) head.norm[k] = head.sums[k];
      }
    } else {
      block_fold(head.kind, head.sums, head.sum_count);
      if (threadIdx.x == 0) {
        const double sum = head.sum_count > 0 ? head.sums[0] : 0.0;
        head.sums[0] = head.given_norm.at     ? head.given_norm.read()
                       : head.has_given_total ? head.given_total / scale
                                              : finish_norm(head, sum, scale);
        if (head.norm) head.norm[0] = head.sums[0];
      }
    }
    __syncthreads();
  }
  if (!head.prepare || report_and_skip(head)) return;
  const Record* const records = resolve<Record>(args, head.records);
  const DeviceOptions* const options = resolve<DeviceOptions>(args, head.options);
  for (std::uint32_t k = threadIdx.x; k < head.record_count; k += kFinishThreads) {
    const Record& r = records[k];
    DeviceOptions o = options[r.options];
    if (o.lr.at) o.host.hyper[0] = o.lr.read();
    o.host.grad_scale = scale;
    std::int64_t step = r.step;
    if (r.step_at.at) {
      step = static_cast<std::int64_t>(r.step_at.read()) + 1;
      r.step_at.write(static_cast<double>(step));
    }
    const double norm = o.host.max_norm >= 0.0 ? head.sums[head.per_tensor ? r.sum : 0] : 0.0;
    Scalars scalars{};
    for (int j = 0; j < kMaxScalars; ++j) {
      if (!r.scalars[j].at) continue;
      scalars.at[j] = r.scalars[j].read();
      scalars.wide[j] = r.scalars[j].wide;
    }
    prepare_any(AllRules{}, r.rule, r.dtype, o.host, norm, step, head.uniforms[k].bytes, &scalars);
    for (int j = 0; j < kMaxScalars; ++j) {
      if (r.scalars[j].at) r.scalars[j].write(scalars.at[j]);
    }
  }
}

// ------------------------------------------------------------------------------------------------ filling memory

// By a kernel rather than a copy: its argument is taken at the launch, so that no host memory has to outlive the call
// and a captured graph holds the contents. A copy from pageable memory may also wait for the device.
template <int kBytes>
__global__ void __launch_bounds__(kThreads) fill_kernel_of(const __grid_constant__ Args<FillHead, kBytes> args) {
  for (std::uint32_t i = (blockIdx.x * kThreads + threadIdx.x) * 4; i < args.head.size; i += gridDim.x * kThreads * 4) {
    *reinterpret_cast<std::uint32_t*>(args.head.to + i) = *reinterpret_cast<const std::uint32_t*>(args.bytes + i);
  }
}

template <Norm kNorm, class T>
constexpr KernelPair both_sizes() {
  return {kernel_of<BatchHead, kSmallArgs, norm_kernel<kNorm, T, kSmallArgs>>(),
          kernel_of<BatchHead, kLargeArgs, norm_kernel<kNorm, T, kLargeArgs>>()};
}

template <Norm kNorm>
const KernelPair& pick(DType dtype) {
  static const KernelPair kernels[kDTypes] = {both_sizes<kNorm, float>(), both_sizes<kNorm, double>()};
  return kernels[static_cast<int>(dtype)];
}

}  // namespace

const KernelPair& norm_kernel_of(Norm norm, DType dtype) {
  return norm == Norm::one   ? pick<Norm::one>(dtype)
         : norm == Norm::two ? pick<Norm::two>(dtype)
                             : pick<Norm::inf>(dtype);
}

const KernelPair& finish_kernel() {
  static const KernelPair kernels = {kernel_of<FinishHead, kSmallArgs, finish_kernel_of<kSmallArgs>>(),
                                     kernel_of<FinishHead, kLargeArgs, finish_kernel_of<kLargeArgs>>()};
  return kernels;
}

const Kernel& fill_kernel() {
  static const Kernel kernel = kernel_of<FillHead, kLargeArgs, fill_kernel_of<kLargeArgs>>();
  return kernel;
}

}  // namespace fusedstep::cuda
