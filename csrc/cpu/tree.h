// The tree of the fixed sums (kernels/table.h) over blocks, chunks and tensors.
#pragma once
#include <cstdint>

namespace fusedstep {

// Complete and binary, neighbours first, padded with zeros; folds in place.
template <class Combine>
double fold_tree(double* sum, std::int64_t n, const Combine& combine) {
  if (n == 0) return 0.0;
  for (; n > 1; n = (n + 1) / 2) {
    for (std::int64_t i = 0; i < n / 2; ++i) sum[i] = combine(sum[2 * i], sum[2 * i + 1]);
    if (n % 2) sum[n / 2] = sum[n - 1];
  }
  return sum[0];
}

}  // namespace fusedstep
