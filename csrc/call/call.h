// One call as data: a step, clipping in place or norms alone. What it is made of, and the phases that it goes through,
// are the same for all of them; a Run carries them out (cpu/run.h, cuda/run.h). No Python, no device.
#pragma once
#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "norms.h"
#include "options.h"
#include "tensor.h"

namespace fusedstep {

enum Phase : unsigned {
  kMeasure = 1,  // reads gradients: what each tensor adds to the norm
  kFold = 2,     // sums to norms; without kMeasure the norm is given
  kPrepare = 4,  // what is constant during the step, in float64, rounded once
  kApply = 8,    // writes
};
using Phases = unsigned;

// What a norm that is NaN or infinite does: it spreads; nothing happens; an error, as in torch.
enum class Nonfinite : std::uint8_t { propagate, skip, raise };

// The largest number of steps that a count, float64 or an integer, can advance to. A float32 count stops by itself at
// 2^24, as torch's does.
inline constexpr std::int64_t kMostSteps = std::int64_t{1} << 53;

struct Call {
  Phases phases = kPrepare | kApply;
  bool in_place = false;    // the gradients are what is written
  bool skips = false;       // the step is known not to happen: norm and report are wanted all the same
  bool told_there = false;  // other ranks' sums, and whether one has failed, reach the device alone

  std::vector<Tensor> tensors;
  std::int32_t sums = 0;  // how many of them are part of the norm
  std::vector<Options> options;
  std::deque<Strided> layouts;                    // what tensors point to
  std::vector<std::pair<Scalar, double>> counts;  // on the host: step counts and scalar states, and their next values
  std::vector<std::pair<int, void*>> streams;     // of each CUDA device

  double norm_type = 2.0;
  bool per_tensor = false;  // each tensor is clipped to its own norm
  Nonfinite nonfinite = Nonfinite::propagate;
  double least_max_norm = -1.0;  // of the options; < 0: none

  Number grad_scale{1.0};  // what gradients were multiplied by
  Number found_inf;        // other than zero: no step
  Number given_norm;       // without kMeasure

  // Where the tensors are. Norm(s); norm and smallest coefficient of this step, then, counted up, steps that clipped
  // and steps that were skipped. Null: nobody asks.
  double* norm_out = nullptr;
  double* report = nullptr;
  int result_device = kHost;
  double* stats = nullptr;  // where the tensors are: kStats of each that has a row, side by side

  bool does(Phase phase) const { return (phases & phase) != 0; }
  bool on_cuda() const { return !tensors.empty() && tensors.front().device != kHost; }
  bool skips_nonfinite() const { return does(kMeasure) && nonfinite == Nonfinite::skip; }
  // Whether the device alone knows of a step that is skipped.
  bool skips_there() const { return skips_nonfinite() || told_there; }
};

// Whether two tensors have the same uniform, but for the norm.
inline bool same_numbers(const Tensor& a, const Tensor& b) {
  const auto has_own = [](const Tensor& t) { return t.step_at.at || t.has_scalars() || t.two_passes; };
  return a.options == b.options && a.step == b.step && a.rule == b.rule && a.compute == b.compute && !has_own(a) &&
         !has_own(b);
}
// Throws std::runtime_error, as torch does, for the first non-finite norm if the caller asked for that.
void check_finite(const Call& call, const Norms& norms, const char* label);

// Carries out a call, which stays where it is meanwhile. Made, it has done all that can fail for a reason outside the
// device itself, but for prepare().
class Run {
 public:
  virtual ~Run() = default;
  // What each tensor adds to the norm, waiting for it.
  virtual std::vector<double> measure() = 0;
  // Sums of all ranks, in place of this process's.
  virtual void use_sums(std::vector<double> sums) = 0;
  // Both without waiting, where the tensors are. What each tensor adds to the norm; then those of whole tensors, which
  // are written over, and whether a rank has failed, so that nothing happens.
  virtual void measure_at(double* to) = 0;
  virtual void use_sums_at(double* sums, std::int64_t count, const Scalar& failed) = 0;
  // The norms of the unscaled gradients, waiting for them. Nothing of the caller's has changed.
  virtual const Norms& fold() = 0;
  // What can still fail before apply() writes.
  virtual void prepare() {}
  // The phases that are left. Waits for no device.
  virtual void apply() = 0;
};

}  // namespace fusedstep
