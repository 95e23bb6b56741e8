// What stands between reading gradients and writing parameters, in one block: it folds the trees of sums, and prepares
// in float64 what the step needs of the norm, of step counts and of learning rates that live on the device. And filling
// memory from kernel arguments.
#include "sums.h"  // first: the lanes of the rules

#include "../kernels/prepare.h"
#include "launch.h"

namespace fusedstep::cuda {
namespace {

template <class Rules>
constexpr bool any_has_sums = false;
template <class... Rule>
constexpr bool any_has_sums<TypeList<Rule...>> = ((sum_count<Rule> > 0) || ...);

__device__ __forceinline__ double finish_norm(const FinishHead& head, double sum, double grad_scale) {
  return (head.kind == Norm::two ? __builtin_sqrt(sum) : sum) / grad_scale;
}

// Whether the step is skipped, told to the step kernels and the report by one thread.
__device__ __forceinline__ bool report_and_skip(const FinishHead& head) {
  const double norm = head.has_norm && !head.per_tensor ? head.sums[0] : 0.0;
  const bool finite = norm - norm == 0.0;
  const bool skips = head.skips || (head.skip_nonfinite && !finite) ||
                     (head.found_inf.at && head.found_inf.read() != 0.0) ||
                     (head.failed.at && head.failed.read() != 0.0);
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

// From the sums of chunks to those of tensors.
template <class A>
__device__ __forceinline__ void fold_chunks(const A& args) {
  const FinishHead& head = args.head;
  const Fold* const folds = resolve<Fold>(args, head.folds);
  for (std::uint32_t k = 0; k < head.large; ++k) {
    block_fold(head.kind, head.chunk_sums + folds[k].first, folds[k].count);
  }
  for (std::uint32_t k = head.large + threadIdx.x / kWarp; k < head.fold_count; k += kFinishThreads / kWarp) {
    warp_fold(head.kind, head.chunk_sums + folds[k].first, folds[k].count);
  }
  __syncthreads();
  for (std::uint32_t k = threadIdx.x; k < head.fold_count; k += kFinishThreads) {
    head.sums[folds[k].into] = folds[k].count > 0 ? head.chunk_sums[folds[k].first] : 0.0;
  }
  __syncthreads();
}

// From those to the norm, or to a norm each.
__device__ __forceinline__ void fold_tensors(const FinishHead& head, double grad_scale) {
  if (head.per_tensor) {
    for (std::uint32_t k = threadIdx.x; k < head.sum_count; k += kFinishThreads) {
      head.sums[k] = finish_norm(head, head.sums[k], grad_scale);
      if (head.norm) head.norm[k] = head.sums[k];
    }
  } else {
    block_fold(head.kind, head.sums, head.sum_count);
    if (threadIdx.x == 0) {
      const double sum = head.sum_count > 0 ? head.sums[0] : 0.0;
      head.sums[0] = head.given_norm.at     ? head.given_norm.read()
                     : head.has_given_total ? head.given_total / grad_scale
                                            : finish_norm(head, sum, grad_scale);
      if (head.norm) head.norm[0] = head.sums[0];
    }
  }
  __syncthreads();
}

// With the numbers that are on the device.
__device__ __forceinline__ StepOptions options_of(const Options& o, double grad_scale) {
  StepOptions out = o.host;
  if (o.lr.at) out.hyper[0] = o.lr.read();
  out.grad_scale = grad_scale;
  return out;
}

template <int N>
__device__ __forceinline__ void write_all(const Scalar (&scalars)[N], const ScalarValues<N>& values) {
  for (int k = 0; k < N && scalars[k].at; ++k) scalars[k].write(values.at[k]);
}

template <class A>
__device__ __forceinline__ void prepare_all(const A& args, double grad_scale) {
  const FinishHead& head = args.head;
  const Options* const options = resolve<Options>(args, head.options);
  const Advance* const advances = resolve<Advance>(args, head.advances);
  for (std::uint32_t k = threadIdx.x; k < head.advance_count; k += kFinishThreads) {
    const Options& o = options[advances[k].options];
    head.groups[k] = read_all(o.scalars);
    advance(static_cast<int>(advances[k].rule), options_of(o, grad_scale), head.groups[k]);
    write_all(o.scalars, head.groups[k]);
  }
  __syncthreads();
  const Record* const records = resolve<Record>(args, head.records);
  for (std::uint32_t k = threadIdx.x; k < head.record_count; k += kFinishThreads) {
    const Record& r = records[k];
    const StepOptions o = options_of(options[r.options], grad_scale);
    std::int64_t step = r.step;
    if (r.step_at.at) {
      step = static_cast<std::int64_t>(r.step_at.read()) + 1;
      r.step_at.write(static_cast<double>(step));
    }
    const double norm = o.max_norm >= 0.0 ? head.sums[head.per_tensor ? r.sum : 0] : 0.0;
    Scalars scalars = read_all(r.scalars);
    const GroupScalars* const group = r.advance < 0 ? nullptr : head.groups + r.advance;
    prepare(r.rule, r.compute, o, norm, step, head.uniforms[k], &scalars, group);
    write_all(r.scalars, scalars);
  }
}

// Between the passes of rules with sums: what the first has left of each chunk becomes the scale of a uniform.
template <class A>
__device__ __forceinline__ void scale_all(const A& args, double grad_scale) {
  const FinishHead& head = args.head;
  const Scaled* const scaled = resolve<Scaled>(args, head.scaled);
  for (std::uint32_t k = threadIdx.x / kWarp; k < head.scaled_count * kMaxSums; k += kFinishThreads / kWarp) {
    const Scaled& s = scaled[k / kMaxSums];
    warp_fold(Norm::one, head.rule_sums + s.first + k % kMaxSums * s.stride, s.chunks);
  }
  __syncthreads();
  for (std::uint32_t k = threadIdx.x; k < head.scaled_count; k += kFinishThreads) {
    const Scaled& s = scaled[k];
    const Record& r = resolve<Record>(args, head.records)[s.record];
    const StepOptions o = options_of(resolve<Options>(args, head.options)[r.options], grad_scale);
    const auto step = r.step_at.at ? static_cast<std::int64_t>(r.step_at.read()) : r.step;
    double sums[kMaxSums];
    for (std::uint32_t j = 0; j < kMaxSums; ++j) sums[j] = s.chunks > 0 ? head.rule_sums[s.first + j * s.stride] : 0.0;
    scale(r.rule, r.compute, o, step, sums, s.numel, head.uniforms[s.record].bytes);
  }
}

template <int kBytes>
__global__ void __launch_bounds__(kFinishThreads)
    finish_kernel_of(const __grid_constant__ Args<FinishHead, kBytes> args) {
  const FinishHead& head = args.head;
  const double grad_scale = head.grad_scale.at ? head.grad_scale.read() : head.scale;
  if constexpr (any_has_sums<AllRules>) {
    if (head.scale_uniforms) {
      if (!(head.skip ? *head.skip != 0.0 : head.found_inf.at && head.found_inf.read() != 0.0))
        scale_all(args, grad_scale);
      return;
    }
  }
  if (head.fold_chunks) fold_chunks(args);
  if (head.fold_tensors) fold_tensors(head, grad_scale);
  if (head.prepare && !report_and_skip(head)) prepare_all(args, grad_scale);
}

// ------------------------------------------------------------------------------------------------------ over ranks

// What the shards of each tensor add to its norm.
__global__ void __launch_bounds__(kThreads) ranks_kernel_of(const __grid_constant__ Args<RanksHead, kSmallArgs> args) {
  const RanksHead& head = args.head;
  for (std::uint32_t k = blockIdx.x * kThreads + threadIdx.x; k < head.count; k += gridDim.x * kThreads) {
    double sum = 0.0;
    for (std::uint32_t r = 0; r < head.ranks; ++r) {
      sum = fold(head.kind, sum, head.rows[static_cast<std::size_t>(r) * head.count + k]);
    }
    head.out[k] = sum;
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

}  // namespace

const KernelPair& finish_kernel() {
  static const KernelPair kernels = {kernel_of<FinishHead, kSmallArgs, finish_kernel_of<kSmallArgs>>(),
                                     kernel_of<FinishHead, kLargeArgs, finish_kernel_of<kLargeArgs>>()};
  return kernels;
}

const Kernel& ranks_kernel() {
  static const Kernel kernel = kernel_of<RanksHead, kSmallArgs, ranks_kernel_of>();
  return kernel;
}

const Kernel& fill_kernel() {
  static const Kernel kernel = kernel_of<FillHead, kLargeArgs, fill_kernel_of<kLargeArgs>>();
  return kernel;
}

}  // namespace fusedstep::cuda
