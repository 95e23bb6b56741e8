// The first pass of a rule with sums on a GPU: the states of each chunk move, then what the rule measures is added up,
// as kernels/measure.h does on a CPU. An element per thread, in the order in which the lanes are filled.
#include "sums.h"  // first: the lanes that measure.h works on

#include "../kernels/measure.h"
#include "launch.h"

namespace fusedstep::cuda {
namespace {

template <class Rule, class T, std::size_t... S>
__device__ __forceinline__ void measure_element(const StepUniform<Rule, T>& u,
                                                const Element<FormatsOf<T>, T, sizeof...(S)>& at,
                                                Wide (&acc)[sum_count<Rule>], std::index_sequence<S...>) {
  constexpr unsigned kSquares = squares<Rule>();
  Lane<T> p = at.get(0), g = at.get(1);
  Lane<T> state[] = {at.get(2 + S)..., T(0)};
  before(u.common, g, p);
  Rule::move(u.rule, g, p, state[S]...);
  (at.set(2 + S, state[S]), ...);
  Lane<T> x[kMaxSums] = {T(0), T(0)};
  Rule::measure(u.rule, x, g, p, at.get(2 + S)...);  // as they are stored
  for (int k = 0; k < sum_count<Rule>; ++k) {
    const Wide value = {static_cast<double>(x[k].r)};
    acc[k] = kSquares >> k & 1 ? accumulate<Norm::two, T>(acc[k], value) : acc[k] + value;
  }
}

template <class Rule, class T, class A, std::size_t... S>
__device__ __forceinline__ void measure_all(const A& args, std::index_sequence<S...> states) {
  const StepHead& head = args.head;
  if (head.found_inf.at && head.found_inf.read() != 0.0) return;
  const StepEntry* const entries = resolve<StepEntry>(args, head.entries);
  for (std::uint32_t chunk = blockIdx.x; chunk < head.chunks; chunk += gridDim.x) {
    const StepEntry& e = entry_of(entries, head, chunk);
    const UniformBytes& uniform = resolve<UniformBytes>(args, head.uniforms)[e.uniform];
    const StepUniform<Rule, T> u = *reinterpret_cast<const StepUniform<Rule, T>*>(uniform.bytes);
    void* const grad = resolve<void*>(args, head.grads)[&e - entries];
    const ChunkStreams& streams = streams_of<2 + sizeof...(S)>(e, grad, uniform.step_key);
    const WarpBlock block(e, chunk);
    Wide acc[sum_count<Rule>] = {};
    for (int i = static_cast<int>(threadIdx.x) % kWarp; i < block.n; i += kWarp) {
      measure_element(u, Element<FormatsOf<T>, T, sizeof...(S)>(streams, e, entries, block.begin + i), acc, states);
    }
#pragma unroll
    for (int k = 0; k < sum_count<Rule>; ++k) {
      const double sum = chunk_sum<Norm::one>(acc[k].r);
      if (threadIdx.x == 0) head.sums[k * head.chunks + chunk] = sum;
    }
  }
}

template <class Rule, class T, int kBytes>
__global__ void __launch_bounds__(kThreads, 2) measure_kernel(const __grid_constant__ Args<StepHead, kBytes> args) {
  measure_all<Rule, T>(args, std::make_index_sequence<Rule::state.size>{});
}

template <class Rule, class T>
constexpr KernelPair both_sizes() {
  if constexpr (sum_count<Rule> == 0) {
    return {};
  } else {
    return {kernel_of<StepHead, kSmallArgs, measure_kernel<Rule, T, kSmallArgs>>(),
            kernel_of<StepHead, kLargeArgs, measure_kernel<Rule, T, kLargeArgs>>()};
  }
}

template <class... Rule>
const KernelPair& pick(TypeList<Rule...>, int rule, Compute compute) {
  static const KernelPair kernels[][kComputes] = {{both_sizes<Rule, float>(), both_sizes<Rule, double>()}...};
  return kernels[rule][static_cast<int>(compute)];
}

}  // namespace

const KernelPair& measure_kernel_of(int rule, Compute compute) { return pick(AllRules{}, rule, compute); }

}  // namespace fusedstep::cuda
