// What travels to the device. Kernel arguments carry what changes from step to step, and all of it while it fits; what
// does not fit lies in device memory, and the kernels read either through a Ref.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../call/options.h"
#include "../call/plan.h"

namespace fusedstep::cuda {

inline constexpr int kThreads = 256;         // of all others: a warp per norm block of a chunk
inline constexpr int kFinishThreads = 1024;  // of the one block that folds and prepares

// What stays the same from step to step of one tensor that a launch takes.
struct Entry {
  std::int64_t numel;
  std::uint32_t first_chunk;  // in its launch
  std::int32_t layout;        // offset of a Layout in the table, in int64s; -1: flat
};

struct StepEntry : Entry {
  void* written[1 + kMaxState];  // the parameter, state
  std::int64_t id;               // what random numbers know it by
  std::int64_t origin;           // and what they add to the place of an element
  std::uint32_t uniform;         // index of its StepUniform
  Format format[kMaxStreams];
};

// Of a tensor with which something rides along. A Layout of it has the strides of mask and average behind those of the
// state, whether it has them or not.
struct RideEntry : StepEntry {
  void* mask;     // null: none
  void* average;  // null: none
  bool nonzero, follows, stats;
};

struct NormEntry : Entry {
  Format format, kept_format;
  bool nonzero;
  void* kept;  // where elements are 0 the gradient counts as 0; null: nowhere
};

// A Layout in a table is int64s: dimensions, their sizes, then their strides for each stream (p, g, state; of a norm
// the gradient in row-major order) in turn, last those of an element's place among the random numbers.

// In device memory, or at an offset in the inline bytes of the same argument.
struct Ref {
  const void* device = nullptr;
  std::uint32_t offset = 0;
};

struct TableHead {
  Ref entries, grads;  // entries and layouts; void*[tensors]
  std::uint32_t tensors, chunks;
  bool one_each;  // every tensor is one chunk
};

// Of the kernels of a rule. Of those with which something rides along, `sums` are what is known of each chunk: number k
// at [k * chunks + c], of tensors with statistics.
struct StepHead : TableHead {
  Ref uniforms;      // UniformBytes[]
  Scalar found_inf;  // null, or: other than zero means that nothing happens
  double* sums;      // of a rule with sums: sum k of chunk c at [k * chunks + c]
  bool reverse;      // last chunk first: its gradient is what the norm kernel has left in L2
};

// The chunks of one tensor among those of its launch, and where its statistics go.
struct StatsRow {
  std::uint32_t first, chunks, stride;
  std::uint32_t row;
};

struct StatsHead {
  Ref rows;  // StatsRow[]
  std::uint32_t count;
  double *sums, *out;
  Scalar found_inf;   // null, or: other than zero means that there was no step
  Scalar grad_scale;  // null: `scale`
  double scale;
};

struct NormHead : TableHead {
  double* sums;  // one per chunk
};

// The sums of one tensor's chunks, to be folded into sums[into].
struct Fold {
  std::uint32_t first, count, into;
};

// One StepUniform to prepare.
struct Record {
  Scalar step_at;     // null, or: the step count, advanced by one
  std::int64_t step;  // without step_at
  std::uint32_t options;
  std::int32_t advance;  // index of the group's scalars; -1: it has none
  std::int32_t sum;      // whose norm limits it with per_tensor
  std::uint8_t rule;
  Compute compute;
  Scalar scalars[kMaxScalars] = {};  // the rule's, of the one tensor whose record this is; null: it has fewer
};

// A tensor of a rule with sums, those of its chunks to become the scale of its uniform: sum k of its chunk c is
// rule_sums[first + k * stride + c].
struct Scaled {
  std::int64_t numel;
  std::uint32_t first, chunks, stride, record;
};

// Options with scalars, and the rule that moves them on.
struct Advance {
  std::uint32_t options, rule;
};

struct FinishHead {
  Ref folds, records, options;  // Fold[folds_count], the `large` ones first; Record[]; Options[]
  Ref advances, scaled;         // Advance[]; Scaled[]
  double *chunk_sums, *sums, *rule_sums;
  double* norm;  // result: the total, or one per tensor; null if nobody asks
  UniformBytes* uniforms;
  GroupScalars* groups;  // one per advance
  double* report;        // null, or: norm, coefficient of least_max_norm, then counts of clipped and of skipped steps
  double* skip;          // null, or: whether the step is skipped, for the step kernels
  Scalar grad_scale, found_inf, given_norm;  // null, or read on the device
  Scalar failed;                             // null, or: other than zero means that a rank has failed
  double scale;                              // without grad_scale
  double given_total, least_max_norm;
  std::uint32_t fold_count, large, sum_count, record_count, advance_count, scaled_count;
  Norm kind;
  bool per_tensor;
  bool has_norm, has_given_total;           // given_total: the norm, but for the scale, in place of that of `sums`
  bool skips, skip_nonfinite;               // the step is skipped; it is if the norm is not finite
  bool fold_chunks, fold_tensors, prepare;  // which phases run: several devices share their sums in between
  bool scale_uniforms;                      // nothing but this runs, between the passes of rules with sums
};

// At most this many chunk sums are folded by one warp.
inline constexpr std::uint32_t kWarpFold = 1024;

// Kernel arguments reach 32,764 bytes (CUDA 12.1, Volta and later). A small model does not pay for copying as much.
template <class Head, int kBytes>
struct Args {
  Head head;
  alignas(16) std::byte bytes[kBytes - (sizeof(Head) + 15) / 16 * 16];
};
inline constexpr int kSmallArgs = 4080, kLargeArgs = 32752;
// 300 tensors travel in the arguments: nothing is copied before their step.
static_assert(300 * (sizeof(StepEntry) + sizeof(void*)) + sizeof(UniformBytes) <
              sizeof(Args<StepHead, kLargeArgs>::bytes));
static_assert(300 * (sizeof(NormEntry) + sizeof(void*)) < sizeof(Args<NormHead, kLargeArgs>::bytes));
static_assert(300 * (sizeof(Record) + sizeof(Fold)) + sizeof(Options) < sizeof(Args<FinishHead, kLargeArgs>::bytes));

template <class T, class A>
FS_DEVICE const T* resolve(const A& args, const Ref& ref) {
  return static_cast<const T*>(ref.device ? ref.device : args.bytes + ref.offset);
}

// Sums of one tensor's shards, ranks x count, to be added up in the order of the ranks.
struct RanksHead {
  const double* rows;
  double* out;  // count
  std::uint32_t ranks, count;
  Norm kind;
};

struct FillHead {
  std::byte* to;
  std::uint32_t size;
};

}  // namespace fusedstep::cuda
