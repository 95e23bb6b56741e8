// What one instruction set exports: a function per rule, norm or format, and compute type. Plain data, no intrinsics.
#pragma once
#include <cstdint>

#include "../formats/all.h"
#include "../rules/all.h"

namespace fusedstep {

// streams: p, g, state... , n contiguous elements each; uniform: StepUniform<Rule, T>.
using StepFn = void (*)(const void* uniform, void* const* streams, std::int64_t n);

// One block of at most kNormBlock contiguous elements: the sum of |x| or x^2, or the largest |x|.
using NormFn = double (*)(const void* x, std::int64_t n);
enum class Norm : std::uint8_t { one, two, inf, pow };  // pow: another order, through libm and without a kernel
inline constexpr int kNorms = 3;
static_assert(static_cast<int>(Norm::pow) == kNorms);

// The fixed shape of a sum: element i of a tensor belongs to virtual lane i % kNormLanes of block i / kNormBlock.
// 32 lanes are 8 AVX2 accumulators, enough to hide the latency of an add; 2,048 elements keep a GPU busy at 10M.
inline constexpr int kNormBlock = 2048;
inline constexpr int kNormLanes = 32;

// From n elements `stride` elements apart to side by side in the compute type of the format, and back.
using DecodeFn = void (*)(const void* from, std::int64_t stride, std::int64_t n, void* to);
using EncodeFn = void (*)(const void* from, std::int64_t n, void* to, std::int64_t stride, const Place& place);

// Of a rule with sums, null for others. `move` is a StepFn that writes the states alone; `measure` adds to the lanes of
// each sum.
struct FirstPass {
  int sums;
  StepFn move;
  void (*measure)(const void* uniform, void* const* streams, std::int64_t n, double (*sums)[kNormLanes]);
};

// A step of a rule whose streams are stored in these formats, in one loop. streams: as of a StepFn, in their formats;
// keys: of the random numbers of each; first: the place of the first element.
struct FusedStep {
  int rule;
  Format format[kMaxStreams];
  void (*step)(const void* uniform, void* const* streams, std::int64_t n, const std::uint64_t* keys,
               std::int64_t first);
};
inline constexpr int kFused = 8;

struct UniformBytes;

// The loops of kernels/ride_loops.h, on n elements of the compute type, side by side. keep: of a mask, 1 or 0; null:
// none. `before` makes q, the decayed p, and the gradient that the rule is given; d then takes the place of q.
struct RideTable {
  void (*keep_nonzero)(const void* p, std::int64_t n, void* keep);
  void (*mask)(const void* keep, const void* x, std::int64_t n, void* to);
  void (*before)(const UniformBytes& uniform, const void* keep, const void* p, const void* g, std::int64_t n, void* q,
                 void* to);
  void (*after)(const UniformBytes& uniform, const void* keep, const void* g, void* d, std::int64_t n, void* p,
                void* const* state, int states);
  void (*average)(const UniformBytes& uniform, const void* p, std::int64_t n, void* e);
  void (*add_squares)(const void* x, std::int64_t n, double* lanes);
  double (*largest)(const void* x, std::int64_t n);
  void (*add_counts)(const UniformBytes& uniform, const void* g, std::int64_t n, double* counts);
};

struct TargetTable {
  const char* name;
  StepFn step[AllRules::size][kComputes];
  StepFn direction[AllRules::size][kComputes];  // streams: q, which d replaces, then as of a step; moves the states
  RideTable ride[kComputes];
  NormFn norm[kNorms][kComputes];
  DecodeFn decode[kFormats];
  EncodeFn encode[kFormats];
  FirstPass first_pass[AllRules::size][kComputes];
  FusedStep fused[kFused];
};

}  // namespace fusedstep
