#include "run.h"

#include <deque>
#include <limits>
#include <optional>
#include <stdexcept>
#include <utility>

#include "../kernels/registry.h"

namespace fusedstep::cpu {
namespace {

class CpuRun final : public Run {
 public:
  explicit CpuRun(Call& call) : call_(call) {}

  std::vector<double> measure() override { return run_sums(call_.tensors, call_.norm_type); }

  void use_sums(std::vector<double> sums) override { sums_ = std::move(sums); }

  void measure_at(double*) override { throw std::logic_error("sums on a device that are on the host"); }
  void use_sums_at(double*, std::int64_t, const Scalar&) override { measure_at(nullptr); }

  const Norms& fold() override {
    if (!call_.does(kMeasure)) {
      norms_.total = call_.given_norm.value;
      return norms_;
    }
    norms_ = fold_sums(sums_ ? *std::move(sums_) : measure(), call_.norm_type);
    norms_.total /= call_.grad_scale.value;
    for (double& n : norms_.each) n /= call_.grad_scale.value;
    return norms_;
  }

  void prepare() override {
    std::vector<std::int64_t> numels;
    numels.reserve(call_.tensors.size());
    const Tensor* last = nullptr;
    double last_norm = 0.0;
    GroupScalars group{};
    for (Tensor& t : call_.tensors) {
      const StepOptions& options = call_.options[t.options].host;
      if (call_.options[t.options].has_scalars() && (!last || last->options != t.options)) group = advanced(t);
      double norm = 0.0;
      if (options.max_norm >= 0.0) norm = call_.per_tensor ? norms_.each[t.sum] : norms_.total;
      if (!last || !same_numbers(*last, t) || !(last_norm == norm)) prepare(t, options, norm, group);
      t.uniform = &uniforms_.back();
      if (t.two_passes) scaled_.emplace_back(&t, &uniforms_.back());
      numels.push_back(leaves_all(options, norm) ? 0 : t.numel);
      last = &t;
      last_norm = norm;
    }
    plan_.emplace(numels);
    if (!scaled_.empty()) rule_sums_.resize(kMaxSums * plan_->chunks());
    if (call_.stats) stats_.resize(kStats * plan_->chunks());
  }

  void apply() override {
    if (!call_.skips) {
      if (!scaled_.empty()) run_first_passes();
      run_step(call_.tensors, *plan_, call_.does(kMeasure), stats_.data());
      for (std::size_t t = 0; t < call_.tensors.size(); ++t) tell_stats(t);
    }
    report();
  }

 private:
  void prepare(const Tensor& t, const StepOptions& options, double norm, const GroupScalars& group) {
    Scalars scalars = read_all(t.scalars);
    fusedstep::prepare(t.rule, t.compute, options, norm, t.step, uniforms_.emplace_back(), &scalars, &group);
    count(t.scalars, scalars);
  }

  // The scalars of the group of its first tensor, one step on.
  GroupScalars advanced(const Tensor& t) {
    const Options& options = call_.options[t.options];
    GroupScalars scalars = read_all(options.scalars);
    advance(t.rule, options.host, scalars);
    count(options.scalars, scalars);
    return scalars;
  }

  template <int N>
  void count(const Scalar (&at)[N], const ScalarValues<N>& next) {
    for (int k = 0; k < N && at[k].at; ++k) call_.counts.emplace_back(at[k], next.at[k]);
  }

  // Of rules with sums over a tensor, which complete its uniform.
  void run_first_passes() {
    run_first_pass(call_.tensors, *plan_, rule_sums_.data());
    for (const auto& [t, uniform] : scaled_) {
      double sums[kMaxSums] = {};  // of no elements
      const std::int64_t first = plan_->first_chunk(t - call_.tensors.data());
      for (int k = 0; k < kMaxSums && t->numel > 0; ++k) sums[k] = rule_sums_[k * plan_->chunks() + first];
      scale(t->rule, t->compute, call_.options[t->options].host, t->step, sums, t->numel, uniform->bytes);
    }
  }

  // From those of chunks to those of a tensor, in its row.
  void tell_stats(std::size_t t) {
    const Tensor& tensor = call_.tensors[t];
    if (!call_.stats || tensor.stats < 0) return;
    const std::int64_t first = plan_->first_chunk(t), chunks = plan_->first_chunk(t + 1) - first;
    double* const row = call_.stats + kStats * tensor.stats;
    for (int k = 0; k < kStats; ++k) {
      const Norm norm = k == kUpdateMax ? Norm::inf : k < kStatNorms ? Norm::two : Norm::one;
      row[k] = fold_tree(norm, stats_.data() + k * plan_->chunks() + first, chunks);
      if (norm == Norm::two) row[k] = __builtin_sqrt(row[k]);
    }
    row[kGradNorm] /= call_.grad_scale.value;
  }

  // Clipping in place to a norm that is within its bound.
  bool leaves_all(const StepOptions& options, double norm) const {
    return call_.in_place && options.clip_value == std::numeric_limits<double>::infinity() &&
           prepare_common(options, norm).grad_mul == 1.0;
  }

  void report() const {
    double* const out = call_.report;
    if (!out) return;
    double coefficient = 1.0;
    if (call_.does(kMeasure)) {
      coefficient = clip_coefficient(norms_.total, call_.least_max_norm);
      out[0] = norms_.total;
      out[1] = coefficient;
    }
    out[2] += !call_.skips && coefficient < 1.0;
    out[3] += call_.skips;
  }

  Call& call_;
  std::optional<std::vector<double>> sums_;  // of all ranks
  Norms norms_;
  std::deque<UniformBytes> uniforms_;                            // what tensors point to
  std::vector<std::pair<const Tensor*, UniformBytes*>> scaled_;  // of rules with sums
  std::vector<double> rule_sums_, stats_;
  std::optional<Plan> plan_;
};

}  // namespace

std::unique_ptr<Run> start(Call& call) { return std::make_unique<CpuRun>(call); }

}  // namespace fusedstep::cpu
