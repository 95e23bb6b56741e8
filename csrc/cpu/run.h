// One call on the CPU: a plan, spread over threads, through the active target's table.
#pragma once
#include <cstdint>
#include <vector>

#include "../call/plan.h"
#include "../call/tensor.h"

namespace fusedstep {

// Gradients are read last to first when a norm has just read them first to last: the tail is still in cache.
void run_step(const std::vector<StepWork>& work, const Plan& plan, bool reverse);

// Of rules with sums: moves their states and measures. kMaxSums per tensor, for scale() to complete its uniform, after
// which run_step makes the second pass. Their layouts are in row-major order, as those of norms are.
std::vector<double> run_first_pass(const std::vector<StepWork>& work, const Plan& plan);

// norm_type 1, 2, inf: under the rounding contract. Other p > 0: through libm's pow, scaled by the largest |x|.
//
// What each tensor adds to a norm: its sum of |x| or x^2, its largest |x|; its norm for other p. The caller sees to the
// default floating-point environment (FloatEnvironment); the threads of a call do for themselves.
std::vector<double> run_sums(const std::vector<NormWork>& work, double norm_type);
// Sums of several ranks, one list per rank, as sums of one process: tensor by tensor, in the order of the ranks. A rank
// with fewer tensors adds zeros.
std::vector<double> add_ranks(const std::vector<std::vector<double>>& sums, double norm_type);

struct Norms {
  std::vector<double> each;  // one per sum
  double total;
};
Norms fold_sums(std::vector<double> sums, double norm_type);
inline Norms run_norm(const std::vector<NormWork>& work, double norm_type) {
  return fold_sums(run_sums(work, norm_type), norm_type);
}

}  // namespace fusedstep
