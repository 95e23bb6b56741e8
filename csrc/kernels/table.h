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

// Where a step leaves what else it knows, and what it is told of each element; null: not asked for. All of the compute
// type, side by side.
struct RideStreams {
  const void* keep;  // 1 or 0, of a mask
  void* average;     // of the parameter as it is computed with
  void* direction;   // d
};

// A step with which something rides along. streams: as of a StepFn.
using RideFn = void (*)(const UniformBytes& uniform, void* const* streams, const RideStreams& beside, std::int64_t n);

// What is not part of that loop, on n elements of the compute type, side by side.
struct RideTable {
  void (*keep_nonzero)(const void* p, std::int64_t n, void* keep);
  void (*mask)(const void* keep, const void* x, std::int64_t n, void* to);
  void (*average)(const UniformBytes& uniform, const void* p, std::int64_t n, void* e);
  // Of a norm block, tile by tile; all but the last tile of whole rows. Returns the sum of the lanes, in any order: it
  // tells whether anything was no number, or infinite.
  // Fetches as much from `next`, which is what will be read after that.
  double (*add_squares)(const void* x, std::int64_t n, double* lanes, const void* next);
  double (*largest)(const void* x, std::int64_t n);  // |x| that is a number
  void (*add_clipped)(const UniformBytes& uniform, const void* g, std::int64_t n, double* count);
  void (*add_nonfinite)(const void* g, std::int64_t n, double* nans, double* infinite);
};

struct TargetTable {
  const char* name;
  StepFn step[AllRules::size][kComputes];
  RideFn ride_step[AllRules::size][kComputes];  // of a rule that assigns, or has sums, null
  RideTable ride[kComputes];
  NormFn norm[kNorms][kComputes];
  DecodeFn decode[kFormats];
  EncodeFn encode[kFormats];
  FirstPass first_pass[AllRules::size][kComputes];
  FusedStep fused[kFused];
};

}  // namespace fusedstep
