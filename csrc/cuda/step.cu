// The step on a GPU: the chunks of a whole batch in one launch, the update of kernels/update.h on one-element lanes,
// 16 bytes of each stream per thread at a time, or 32 of the wider ones where some are stored in 16 bits, which kernels
// of their own do. Where a stream is not aligned to that or does not lie flat, and at the end of a tensor, the
// same update runs element by element. Of a rule with sums it is the second pass, which moves no state.
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

// Elements i to i + 7 of a flat tensor whose streams are aligned, however they are stored.
template <class Rule, class T, std::size_t... S>
__device__ __forceinline__ void update_stored(const StepUniform<Rule, T>& u, const ChunkStreams& streams,
                                              std::int64_t i, std::index_sequence<S...> states) {
  constexpr int kWidth = 8, kStreams = 2 + sizeof...(S);
  using Formats = FormatsOf<T>;
  const auto wide = [&](int k) { return is_wide(streams.format[k]); };
  const auto address = [&](int k) { return global<char>(streams.data[k]) + i * (wide(k) ? 4 : 2); };
  Raw<kWidth> raw[kStreams];
#pragma unroll
  for (int k = 0; k < kStreams; ++k) raw[k].load(address(k), wide(k));
  T x[kStreams][kWidth];
#pragma unroll
  for (int k = 0; k < kStreams; ++k) raw[k].template decode<Formats>(streams.format[k], x[k]);
#pragma unroll
  for (int k = 0; k < kWidth; ++k) {
    Lane<T> param = x[0][k];
    Lane<T> state[] = {x[2 + S][k]..., T(0)};
    update_one<Rule>(u, Lane<T>(x[1][k]), param, state, states);
    x[0][k] = param.r;
    ((x[2 + S][k] = state[S].r), ...);
  }
#pragma unroll
  for (int k = 0; k < kStreams; ++k) {
    if (k == 1 || (k > 1 && sum_count<Rule> > 0)) continue;
    raw[k].template encode<Formats>(streams.format[k], x[k], [&] { return streams.place(k, i); });
    raw[k].store(address(k), wide(k));
  }
}

template <class Rule, class Formats, class T, std::size_t... S>
__device__ __forceinline__ void update_element(const StepUniform<Rule, T>& u,
                                               const Element<Formats, T, sizeof...(S)>& at,
                                               std::index_sequence<S...> states) {
  Lane<T> param = at.get(0);
  Lane<T> state[] = {at.get(2 + S)..., T(0)};
  update_one<Rule>(u, at.get(1), param, state, states);
  at.set(0, param);
  if constexpr (sum_count<Rule> == 0) (at.set(2 + S, state[S]), ...);
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

// Whether every stream can be read 16 bytes at a time.
template <std::size_t... K>
__device__ __forceinline__ bool is_aligned(const ChunkStreams& streams, std::index_sequence<K...>) {
  return (reinterpret_cast<std::uintptr_t>(streams.data[K]) | ...) % 16 == 0;
}

// Elements [begin, begin + n) of a tensor that is strided or, if kMixed, has streams that are not stored as they are
// computed with.
template <class Rule, class T, bool kMixed, std::size_t... S>
__device__ __forceinline__ void step_apart(const StepUniform<Rule, T>& u, const ChunkStreams& streams, const Entry& e,
                                           const void* table, std::int64_t begin, int n,
                                           std::index_sequence<S...> states) {
  int done = 0;
  if constexpr (kMixed) {
    if (e.layout < 0 && is_aligned(streams, std::make_index_sequence<2 + sizeof...(S)>{})) {
      done = n - n % 8;
      for (int i = static_cast<int>(threadIdx.x) * 8; i < done; i += kThreads * 8) {
        update_stored(u, streams, begin + i, states);
      }
    }
  }
  using Formats = std::conditional_t<kMixed, FormatsOf<T>, Plain<T>>;
  for (int i = done + static_cast<int>(threadIdx.x); i < n; i += kThreads) {
    update_element(u, Element<Formats, T, sizeof...(S)>(streams, e, table, begin + i), states);
  }
}

template <class Rule, class T, bool kMixed, class A, std::size_t... S>
__device__ __forceinline__ void step_all(const A& args, std::index_sequence<S...> states) {
  const StepHead& head = args.head;
  if (head.found_inf.at && head.found_inf.read() != 0.0) return;
  const StepEntry* const entries = resolve<StepEntry>(args, head.entries);
  for (std::uint32_t c = blockIdx.x; c < head.chunks; c += gridDim.x) {
    const std::uint32_t chunk = head.reverse ? head.chunks - 1 - c : c;
    const StepEntry& e = entry_of(entries, head, chunk);
    const UniformBytes& uniform = resolve<UniformBytes>(args, head.uniforms)[e.uniform];
    const StepUniform<Rule, T> u = *reinterpret_cast<const StepUniform<Rule, T>*>(uniform.bytes);
    void* const grad = resolve<void*>(args, head.grads)[&e - entries];
    const std::int64_t begin = static_cast<std::int64_t>(chunk - e.first_chunk) * kChunk;
    const int n = static_cast<int>(e.numel - begin < kChunk ? e.numel - begin : kChunk);
    if (kMixed || e.layout >= 0) {
      const ChunkStreams& streams = streams_of<2 + sizeof...(S)>(e, grad, uniform.step_key);
      step_apart<Rule, T, kMixed>(u, streams, e, entries, begin, n, states);
    } else if constexpr (!kMixed) {
      [[maybe_unused]] T* const s[] = {global<T>(e.written[1 + S]) + begin..., nullptr};
      step_chunk(u, global<T>(e.written[0]) + begin, global<T>(grad) + begin, s, n, states);
    }
  }
}

// Blocks per multiprocessor that registers are to leave room for. With three, five streams of eight elements would
// spill, and on sm_100 and later those of Lion. So would six of four, which Adan has, and five beside many constants.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr int kMostStates = 0;
#else
constexpr int kMostStates = 2;
#endif
template <class Rule>
constexpr int kMostPlainStates = sizeof(typename Rule::template Uniform<float>) > 8 * sizeof(float) ? 2 : 3;
template <class Rule, class T, bool kMixed>
constexpr int kBlocks = sizeof(T) == 8 || Rule::state.size > (kMixed ? kMostStates : kMostPlainStates<Rule>) ? 2 : 3;

template <class Rule, class T, bool kMixed, int kBytes>
__global__ void __launch_bounds__(kThreads, kBlocks<Rule, T, kMixed>)
    step_kernel(const __grid_constant__ Args<StepHead, kBytes> args) {
  step_all<Rule, T, kMixed>(args, std::make_index_sequence<Rule::state.size>{});
}

template <class Rule, class T, bool kMixed>
constexpr KernelPair both_sizes() {
  return {kernel_of<StepHead, kSmallArgs, step_kernel<Rule, T, kMixed, kSmallArgs>>(),
          kernel_of<StepHead, kLargeArgs, step_kernel<Rule, T, kMixed, kLargeArgs>>()};
}

template <class... Rule>
const KernelPair& pick(TypeList<Rule...>, int rule, Compute compute, bool mixed) {
  static const KernelPair kernels[][3] = {
      {both_sizes<Rule, float, false>(), both_sizes<Rule, double, false>(), both_sizes<Rule, float, true>()}...};
  return kernels[rule][mixed ? 2 : static_cast<int>(compute)];  // float64 is never mixed
}

}  // namespace

const KernelPair& step_kernel_of(int rule, Compute compute, bool mixed) {
  return pick(AllRules{}, rule, compute, mixed);
}

}  // namespace fusedstep::cuda
