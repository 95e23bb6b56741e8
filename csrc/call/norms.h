// From what tensors add to a norm to the norm: under the rounding contract for orders 1, 2 and inf, through libm's pow
// for another p > 0.
#pragma once
#include <cstdint>
#include <vector>

#include "../kernels/fold.h"

namespace fusedstep {

Norm norm_of(double norm_type);

// The complete binary tree over sums, missing ones zero; folds in place.
double fold_tree(Norm norm, double* sums, std::int64_t n);

struct Norms {
  std::vector<double> each;  // one per sum
  double total = 0.0;
};
// `sums`: of each tensor the sum of |x| or x^2, or its largest |x|; its norm for other p.
Norms fold_sums(std::vector<double> sums, double norm_type);

// Sums of several ranks, one list per rank, as sums of one process: tensor by tensor, in the order of the ranks. A rank
// with fewer tensors adds zeros.
std::vector<double> add_ranks(const std::vector<std::vector<double>>& sums, double norm_type);

}  // namespace fusedstep
