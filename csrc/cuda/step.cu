// The step on a GPU: the chunks of a whole batch in one launch, the update of kernels/update.h on one-element lanes,
// 16 bytes of each stream per thread at a time. Where a stream is not aligned to that, and at the end of a tensor, the
// same update runs element by element.
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
  ((*reinterpret_cast<Pack*>(s[S] + i) = state[S]), ...);
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
  constexpr int kStreams = 2 + sizeof...(S);
  const BatchHead& head = args.head;
  if (head.found_inf.at && head.found_inf.read() != 0.0) return;
  const Entry* const entries = resolve<Entry>(args, head.entries);
  for (std::uint32_t c = blockIdx.x; c < head.chunks; c += gridDim.x) {
    const std::uint32_t chunk = head.reverse ? head.chunks - 1 - c : c;
    const Entry& e = entry_of(entries, head, chunk);
    const StepUniform<Rule, T> u =
        *reinterpret_cast<const StepUniform<Rule, T>*>(resolve<UniformBytes>(args, head.uniforms) + e.uniform);
    const T* const g = global<T>(resolve<void*>(args, head.grads)[&e - entries]);
    T* const p = global<T>(e.written[0]);
    [[maybe_unused]] T* const s[] = {global<T>(e.written[1 + S])..., nullptr};
    const std::int64_t begin = static_cast<std::int64_t>(chunk - e.first_chunk) * kChunk;
    const int n = static_cast<int>(e.numel - begin < kChunk ? e.numel - begin : kChunk);
    if (e.layout < 0) {
      T* const here[] = {s[S] + begin..., nullptr};
      step_chunk(u, p + begin, g + begin, here, n, states);
      continue;
    }
    const std::int64_t* const layout = reinterpret_cast<const std::int64_t*>(entries) + e.layout;
    for (int i = static_cast<int>(threadIdx.x); i < n; i += kThreads) {
      std::int64_t offset[kStreams];
      locate(layout, begin + i, offset);
      T* const here[] = {s[S] + offset[2 + S]..., nullptr};
      update_pack<Rule, T, 1>(u, p + offset[0], g + offset[1], here, 0, states);
    }
  }
}

template <class Rule, class T, int kBytes>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 4 ? 3 : 2)
    step_kernel(const __grid_constant__ Args<BatchHead, kBytes> args) {
  step_all<Rule, T>(args, std::make_index_sequence<Rule::state.size>{});
}

template <class Rule, class T>
constexpr KernelPair both_sizes() {
  return {kernel_of<BatchHead, kSmallArgs, step_kernel<Rule, T, kSmallArgs>>(),
          kernel_of<BatchHead, kLargeArgs, step_kernel<Rule, T, kLargeArgs>>()};
}

template <class... Rule>
constexpr bool none_has_sums(TypeList<Rule...>) {
  return ((sum_count<Rule> == 0) && ...);
}
static_assert(kFormats == kDTypes, "these kernels take the compute types alone: a format needs its decoding here");
static_assert(none_has_sums(AllRules{}), "a rule with sums needs its first pass, which is not written for CUDA");

template <class... Rule>
const KernelPair& pick(TypeList<Rule...>, int rule, DType dtype) {
  static const KernelPair kernels[][kDTypes] = {{both_sizes<Rule, float>(), both_sizes<Rule, double>()}...};
  return kernels[rule][static_cast<int>(dtype)];
}

}  // namespace

const KernelPair& step_kernel_of(int rule, DType dtype) { return pick(AllRules{}, rule, dtype); }

}  // namespace fusedstep::cuda
