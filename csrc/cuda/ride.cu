// The step of tensors with which something rides along (kernels/ride.h) on a GPU, one kernel per rule and compute type:
// what the other kernels of the rule do, and all that surrounds it, in registers. A warp takes a norm block, an element
// of each stream per thread, since that is the order in which statistics are summed up; several rows are in flight.
#include "sums.h"  // first: the lanes of the rules

#include "../kernels/norm.h"
#include "../kernels/ride.h"
#include "launch.h"

namespace fusedstep::cuda {
namespace {

constexpr int kRows = 2;

// What is known of the elements of this thread's lane.
template <class T>
struct LaneStats {
  Wide squares[kStatNorms];
  Lane<T> largest;
  int counts[kStatCounts];
};

// kRows elements of every stream, 32 apart: where they are in each, and whether they are there at all.
template <class T, int kStates>
struct Rows {
  static constexpr int kMask = 2 + kStates, kAverage = kMask + 1, kPlaceOf = kAverage + 1;
  const RideEntry& entry;
  const ChunkStreams& streams;
  const void* table;
  std::int64_t index[kRows];
  bool is_there[kRows];

  // Where they are in a stream: looked up before the format is, for code that is made for each format is long.
  __device__ __forceinline__ void locate(int stream, std::int64_t (&at)[kRows]) const {
#pragma unroll
    for (int r = 0; r < kRows; ++r) at[r] = index[r];
    if (entry.layout < 0) return;
    const std::int64_t* const layout = static_cast<const std::int64_t*>(table) + entry.layout;
    const std::int64_t dims = layout[0];
    std::int64_t rest[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      rest[r] = index[r];
      at[r] = 0;
    }
#pragma unroll 1  // a slow path
    for (std::int64_t d = dims - 1; d >= 0; --d) {
      const std::int64_t size = layout[1 + d], stride = layout[1 + dims * (1 + stream) + d];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        at[r] += rest[r] % size * stride;
        rest[r] /= size;
      }
    }
  }
  __device__ __forceinline__ void load(int stream, T* to) const {
    std::int64_t at[kRows];
    locate(stream, at);
    with_format(FormatsOf<T>{}, streams.format[stream], [&](auto of) {
      using F = typename decltype(of)::type;
      const auto* const from = global<typename F::Stored>(streams.data[stream]);
#pragma unroll
      for (int r = 0; r < kRows; ++r) to[r] = is_there[r] ? F::load(from[at[r]]) : T(0);
    });
  }
  __device__ __forceinline__ void store(int stream, const T* from) const {
    std::int64_t at[kRows];
    locate(stream, at);
    with_format(FormatsOf<T>{}, streams.format[stream], [&](auto of) {
      using F = typename decltype(of)::type;
      auto* const to = global<typename F::Stored>(streams.data[stream]);
      [[maybe_unused]] std::int64_t place[kRows];
      if constexpr (F::draws) locate(kPlaceOf, place);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (!is_there[r]) continue;
        if constexpr (F::draws) {
          to[at[r]] = F::store(from[r], streams.place(stream, place[r]).number(0));
        } else {
          to[at[r]] = F::store(from[r]);
        }
      }
    });
  }
  // 1 where an element is kept.
  __device__ __forceinline__ void load_keep(const T* p, T* to) const {
    std::int64_t at[kRows];
    if (entry.mask) locate(kMask, at);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      to[r] = T(1);
      if (entry.mask && is_there[r]) to[r] = global<std::uint8_t>(entry.mask)[at[r]] != 0 ? T(1) : T(0);
      if (entry.nonzero) to[r] = is_nonzero(Lane<T>(p[r])).r;
    }
  }
  // Of the parameter as it is stored.
  __device__ __forceinline__ void average(const Ride<T>& ride, const T* p) const {
    T* const to = global<T>(entry.average);
    std::int64_t at[kRows];
    locate(kAverage, at);
    T e[kRows] = {};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (is_there[r]) e[r] = to[at[r]];
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (is_there[r]) to[at[r]] = averaged(ride, Lane<T>(e[r]), Lane<T>(p[r])).r;
    }
  }
};

// The new parameters, from those of before.
template <class Rule, class T, std::size_t... S>
__device__ __forceinline__ void move_rows(const StepUniform<Rule, T>& u, const Ride<T>& ride, const RideNumbers& asked,
                                          const Rows<T, sizeof...(S)>& rows, T (&p)[kRows], LaneStats<T>& stats,
                                          std::index_sequence<S...> states) {
  T g[kRows], keep[kRows];
  [[maybe_unused]] T state[sizeof...(S) + 1][kRows];
  rows.load(1, g);
  (rows.load(2 + S, state[S]), ...);
  rows.load_keep(p, keep);
  const bool masked = rows.entry.mask || rows.entry.nonzero;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const Lane<T> param = p[r], kept = keep[r], none = T(0);
    const Lane<T> given = masked ? where_kept(kept, Lane<T>(g[r]), none) : Lane<T>(g[r]);
    if (rows.entry.stats && rows.is_there[r]) {
      stats.squares[kParamNorm] =
          accumulate<Norm::two, T>(stats.squares[kParamNorm], Wide{static_cast<double>(param.r)});
      stats.squares[kGradNorm] = accumulate<Norm::two, T>(stats.squares[kGradNorm], Wide{static_cast<double>(given.r)});
      stats.counts[0] += is_clipped(u.common, given).r > T(0);
      stats.counts[1] += is_nan(given).r > T(0);
      stats.counts[2] += is_infinite(given).r > T(0);
    }
    Lane<T> grad = limited(u.common, Lane<T>(g[r])), q = param;
    if (masked) grad = where_kept(kept, grad, none);
    decay(u.common, grad, q);
    Lane<T> own[] = {state[S][r]..., T(0)};
    Lane<T> d = direction<Rule>(u, grad, q, own, states);
    if (asked.cautious) d = agreeing(d, grad);
    if (asked.cautious_decay) q = decayed_with(ride, param, d);
    Lane<T> next = shrunk(ride, q - d);
    if (masked) {
      next = where_kept(kept, next, none);
      d = where_kept(kept, d, none);
      ((own[S] = where_kept(kept, own[S], Lane<T>(ride.start[S]))), ...);
    }
    p[r] = next.r;
    ((state[S][r] = own[S].r), ...);
    if (rows.entry.stats && rows.is_there[r]) {
      stats.squares[kUpdateNorm] = accumulate<Norm::two, T>(stats.squares[kUpdateNorm], Wide{static_cast<double>(d.r)});
      stats.largest = max_nan(abs(d), stats.largest);
    }
  }
  rows.store(0, p);
  (rows.store(2 + S, state[S]), ...);
}

template <class Rule, class T, class A, std::size_t... S>
__device__ __forceinline__ void ride_all(const A& args, std::index_sequence<S...> states) {
  const StepHead& head = args.head;
  if (head.found_inf.at && head.found_inf.read() != 0.0) return;
  const RideEntry* const entries = resolve<RideEntry>(args, head.entries);
  for (std::uint32_t c = blockIdx.x; c < head.chunks; c += gridDim.x) {
    const std::uint32_t chunk = head.reverse ? head.chunks - 1 - c : c;
    const RideEntry& e = entry_of(entries, head, chunk);
    const UniformBytes& uniform = resolve<UniformBytes>(args, head.uniforms)[e.uniform];
    const StepUniform<Rule, T> u = *reinterpret_cast<const StepUniform<Rule, T>*>(uniform.bytes);
    const Ride<T> ride(uniform.ride);
    void* const grad = resolve<void*>(args, head.grads)[&e - entries];
    const ChunkStreams& streams = streams_of<2 + sizeof...(S)>(e, grad, uniform.step_key);
    const WarpBlock block(e, chunk);
    LaneStats<T> stats = {{Wide::zero(), Wide::zero(), Wide::zero()}, T(0), {}};
    for (int first = 0; first < block.n; first += kRows * kWarp) {
      Rows<T, sizeof...(S)> rows{e, streams, entries, {}, {}};
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int i = first + r * kWarp + static_cast<int>(threadIdx.x) % kWarp;
        rows.index[r] = block.begin + i;
        rows.is_there[r] = i < block.n;
      }
      T p[kRows];
      rows.load(0, p);
      if constexpr (!assigns<Rule>) {
        move_rows(u, ride, uniform.ride, rows, p, stats, states);
        if (e.average && streams.format[0] != (sizeof(T) == 4 ? Format::float32 : Format::float64)) {
          rows.load(0, p);
        }
      }
      if (e.average) rows.average(ride, p);
    }
    if (!e.stats) continue;
    const auto tell = [&](int k, double sum) {
      if (threadIdx.x == 0) head.sums[k * head.chunks + chunk] = sum;
    };
    for (int k = 0; k < kStatNorms; ++k) tell(k, chunk_sum<Norm::one>(stats.squares[k].r));
    tell(kUpdateMax, chunk_sum<Norm::inf>(static_cast<double>(stats.largest.r)));
    for (int k = 0; k < kStatCounts; ++k) tell(kClipped + k, chunk_sum<Norm::one>(stats.counts[k]));
  }
}

// Of Clip that of tensors without a gradient, which update their averages alone.
template <class Rule, class T>
constexpr int kBlocks =
    Rule::state.size > (sizeof(T) == 8 ? 1 : 3) ? 1 : 2;  // per multiprocessor; with more they spill

template <class Rule, class T>
__global__ void __launch_bounds__(kThreads, kBlocks<Rule, T>)
    ride_kernel(const __grid_constant__ Args<StepHead, kLargeArgs> args) {
  ride_all<Rule, T>(args, std::make_index_sequence<Rule::state.size>{});
}

// Nothing rides along with a rule that has sums.
template <class Rule, class T>
constexpr Kernel one_size() {
  if constexpr (sum_count<Rule> > 0) {
    return {};
  } else {
    return kernel_of<StepHead, kLargeArgs, ride_kernel<Rule, T>>();
  }
}

template <class... Rule>
const Kernel& pick(TypeList<Rule...>, int rule, Compute compute) {
  static const Kernel kernels[][kComputes] = {{one_size<Rule, float>(), one_size<Rule, double>()}...};
  return kernels[rule][static_cast<int>(compute)];
}

// ---------------------------------------------------------------------------------------------------- statistics

// From those of chunks to those of tensors: a block each.
__global__ void __launch_bounds__(kFinishThreads)
    stats_kernel_of(const __grid_constant__ Args<StatsHead, kLargeArgs> args) {
  const StatsHead& head = args.head;
  if (head.found_inf.at && head.found_inf.read() != 0.0) return;
  const StatsRow& row = resolve<StatsRow>(args, head.rows)[blockIdx.x / kStats];
  const int k = static_cast<int>(blockIdx.x % kStats);
  double* const sums = head.sums + row.first + static_cast<std::size_t>(k) * row.stride;
  block_fold(k == kUpdateMax ? Norm::inf : Norm::one, sums, row.chunks);
  if (threadIdx.x != 0) return;
  double value = row.chunks > 0 ? sums[0] : 0.0;
  if (k < kStatNorms) value = __builtin_sqrt(value);
  if (k == kGradNorm) value /= head.grad_scale.at ? head.grad_scale.read() : head.scale;
  head.out[static_cast<std::size_t>(row.row) * kStats + k] = value;
}

}  // namespace

const Kernel& ride_kernel_of(int rule, Compute compute) { return pick(AllRules{}, rule, compute); }

const Kernel& stats_kernel() {
  static const Kernel kernel = kernel_of<StatsHead, kLargeArgs, stats_kernel_of>();
  return kernel;
}

}  // namespace fusedstep::cuda
