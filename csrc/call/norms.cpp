#include "norms.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fusedstep {
namespace {

// Scaled by the largest value, no power overflows; a zero or non-finite largest value is the norm itself.
double pow_norm(const std::vector<double>& x, double p) {
  double largest = 0.0;
  for (const double v : x) largest = fold(Norm::inf, v, largest);
  if (largest == 0.0 || !std::isfinite(largest)) return largest;
  double sum = 0.0;
  for (const double v : x) sum += std::pow(v / largest, p);
  return largest * std::pow(sum, 1.0 / p);
}

}  // namespace

Norm norm_of(double norm_type) {
  return norm_type == 1.0 ? Norm::one : norm_type == 2.0 ? Norm::two : std::isinf(norm_type) ? Norm::inf : Norm::pow;
}

double fold_tree(Norm norm, double* sums, std::int64_t n) {
  if (n == 0) return 0.0;
  for (; n > 1; n = (n + 1) / 2) {
    for (std::int64_t i = 0; i < n / 2; ++i) sums[i] = fold(norm, sums[2 * i], sums[2 * i + 1]);
    if (n % 2) sums[n / 2] = sums[n - 1];
  }
  return sums[0];
}

Norms fold_sums(std::vector<double> sums, double norm_type) {
  const Norm norm = norm_of(norm_type);
  Norms out{std::move(sums), 0.0};
  if (norm == Norm::pow) {
    out.total = pow_norm(out.each, norm_type);
    return out;
  }
  std::vector<double> tree = out.each;
  out.total = fold_tree(norm, tree.data(), static_cast<std::int64_t>(tree.size()));
  if (norm == Norm::two) {
    out.total = std::sqrt(out.total);
    for (double& x : out.each) x = std::sqrt(x);
  }
  return out;
}

std::vector<double> add_ranks(const std::vector<std::vector<double>>& sums, double norm_type) {
  const Norm norm = norm_of(norm_type);
  std::vector<double> out;
  for (const std::vector<double>& rank : sums) {
    if (norm == Norm::pow) {  // norms, which do not add up: each stays one of its own
      out.insert(out.end(), rank.begin(), rank.end());
      continue;
    }
    out.resize(std::max(out.size(), rank.size()));
    for (std::size_t t = 0; t < rank.size(); ++t) out[t] = fold(norm, out[t], rank[t]);
  }
  return out;
}

}  // namespace fusedstep
