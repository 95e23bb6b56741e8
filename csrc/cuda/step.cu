// The step on a GPU: the chunks of a whole batch in one launch, the update of kernels/update.h on one-element lanes,
// 16 bytes of each stream per thread at a time. Where a stream is not aligned to that, does not lie flat or is stored
// in another format, and at the end of a tensor, the same update runs element by element. Of a rule with sums it is the
// second pass, which moves no state.
#include "../kernels/update.h"
#include "device.h"
#include "launch.h"

namespace fusedstep::cuda {
namespace {

// kWidth neighbours of each stream from element i on.
template <class Rule, class T, int kWidth, std::size_t... S>
__device__ __forceinline__ void update_pack(const StepUniform<Rule, T>& u, T* p, const T* g,
                                            [[maybe_unused]] T* const* s, int i, std::index_sequence<S...> states) {
  struct alignas(kWidth * sizeof(T)) Pack {
    T x[kWidth];
  };
  Pack param = *reinterpret_cast<Pack*>(p + i);
  const Pack grad = *reinterpret_cast<const Pack*>(g + i);
  Pack state[] = {*reinterpret_cast<Pack*>(s[S] + i)..., Pack{}};
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    Lane<T> lane = param.x[k];
    Lane<T> lane_state[] = {state[S].x[k]..., T(0)};
    update_one<Rule>(u, Lane<T>(grad.x[k]), lane, lane_state, states);
    param.x[k] = lane.r;
    ((state[S].x[k] = lane_state[S].r), ...);
  }
  *reinterpret_cast<Pack*>(p + i) = param;
  if constexpr (sum_count<Rule> == 0) ((*reinterpret_cast<Pack*>(s[S] + i) = state[S]), ...);
}

template <class Rule, class T, std::size_t... S>
__device__ __forceinline__ void update_element(const StepUniform<Rule, T>& u, const Element<T, sizeof...(S)>& at,
                                               std::index_sequence<S...> states) {
  Lane<T> param = at.param();
  Lane<T> state[] = {at.state(S)..., T(0)};
  update_one<Rule>(u, at.gradient(), param, state, states);
  at.set_param(param);
  if constexpr (sum_count<Rule> == 0) (at.set_state(S, state[S]), ...);
}

template <class Rule, class T, std::size_t... S>
__device__ __forceinline__ void step_chunk(const StepUniform<Rule, T>& u, T* p, const T* g,
                                           [[maybe_unused]] T* const* s, int n, std::index_sequence<S...> states) {
  constexpr int kWidth = 16 / sizeof(T);
  std::uintptr_t addresses = reinterpret_cast<std::uintptr_t>(p) | reinterpret_cast<std::uintptr_t>(g);
  ((addresses |= reinterpret_cast<std::uintptr_t>(s[S])), ...);
  int done = 0;
  if (addresses % 16 == 0) {
    done = n - n % kWidth;
    for (int i = static_cast<int>(threadIdx.x) * kWidth; i < done; i += kThreads * kWidth) {
      update_pack<Rule, T, kWidth>(u, p, g, s, i, states);
    }
  }
  for (int i = done + static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    update_pack<Rule, T, 1>(u, p, g, s, i, states);
  }
}

template <class Rule, class T, class A, std::size_t... S>
__device__ __forceinline__ void step_all(const A& args, std::index_sequence<S...> states) {
  const StepHead& head = args.head;
  if (head.found_inf.at && head.found_inf.read() != 0.0) return;
  const StepEntry* const entries = resolve<StepEntry>(args, head.entries);
  for (std::uint32_t c = blockIdx.x; c < head.chunks; c += gridDim.x) {
    const std::uint32_t chunk = head.reverse ? head.chunks - 1 - c : c;
    const StepEntry& e = entry_of(entries, head, chunk);
    const StepUniform<Rule, T> u =
        *reinterpret_cast<const StepUniform<Rule, T>*>(resolve<UniformBytes>(args, head.uniforms) + e.uniform);
    void* const grad = resolve<void*>(args, head.grads)[&e - entries];
    const std::int64_t begin = static_cast<std::int64_t>(chunk - e.first_chunk) * kChunk;
    const int n = static_cast<int>(e.numel - begin < kChunk ? e.numel - begin : kChunk);
    if (e.apart) {
      for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
        update_element(u, Element<T, sizeof...(S)>(e, entries, grad, begin + i), states);
      }
      continue;
    }
    [[maybe_unused]] T* const s[] = {global<T>(e.written[1 + S]) + begin..., nullptr};
    step_chunk(u, global<T>(e.written[0]) + begin, global<T>(grad) + begin, s, n, states);
  }
}

template <class Rule, class T, int kBytes>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 3 : 2)
    step_kernel(const __grid_constant__ Args<StepHead, kBytes> args) {
  step_all<Rule, T>(args, std::make_index_sequence<Rule::state.size>{});
}

template <class Rule, class T>
constexpr KernelPair both_sizes() {
  return {kernel_of<StepHead, kSmallArgs, step_kernel<Rule, T, kSmallArgs>>(),
          kernel_of<StepHead, kLargeArgs, step_kernel<Rule, T, kLargeArgs>>()};
}

template <class... Rule>
const KernelPair& pick(TypeList<Rule...>, int rule, Compute compute) {
  static const KernelPair kernels[][kComputes] = {{both_sizes<Rule, float>(), both_sizes<Rule, double>()}...};
  return kernels[rule][static_cast<int>(compute)];
}

}  // namespace

const KernelPair& step_kernel_of(int rule, Compute compute) { return pick(AllRules{}, rule, compute); }

}  // namespace fusedstep::cuda
