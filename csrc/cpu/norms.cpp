#include <algorithm>
#include <cmath>
#include <limits>

#include "dispatch.h"
#include "run.h"
#include "tree.h"
#include "walk.h"

namespace fusedstep {
namespace {

enum class Kind { one, two, inf, pow };

double combine(Kind kind, double a, double b) {
  if (kind == Kind::inf) return a > b || a != a ? a : b;
  return a + b;
}

double fold_tree(Kind kind, double* sum, std::int64_t n) {
  return fusedstep::fold_tree(sum, n, [kind](double a, double b) { return combine(kind, a, b); });
}

struct NormCall {
  const TargetTable& target;
  Kind kind;
  double p = 1.0;
  std::vector<double> scale = {};  // pow: sum of (|x| / scale)^p, the largest |x| of each tensor
};

// |x|, or |z| of complex pairs, where the contract's kernels do not apply.
template <class T>
double slow_block(const NormCall& call, double scale, const T* x, std::int64_t n, bool is_complex) {
  double sum = 0.0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double a = is_complex ? std::hypot(static_cast<double>(x[2 * i]), static_cast<double>(x[2 * i + 1]))
                                : std::fabs(static_cast<double>(x[i]));
    sum = combine(call.kind, call.kind == Kind::pow ? std::pow(a / scale, call.p) : a, sum);
  }
  return sum;
}

template <class T>
double norm_chunk(const NormCall& call, const NormWork& w, double scale, std::int64_t begin, std::int64_t end) {
  constexpr DType compute = sizeof(T) == 4 ? DType::float32 : DType::float64;
  const int width = w.is_complex && call.kind != Kind::two ? 2 : 1;  // Ts per element
  const bool slow = call.kind == Kind::pow || width == 2;
  const NormFn block = slow ? nullptr : call.target.norm[static_cast<int>(call.kind)][static_cast<int>(compute)];
  double sum[kChunk / kNormBlock];
  std::int64_t blocks = 0;
  T buffer[2 * kNormBlock];
  for (; begin < end; begin += kNormBlock) {
    const std::int64_t n = std::min<std::int64_t>(kNormBlock, end - begin);
    const T* x = static_cast<const T*>(w.data) + begin * width;
    if (w.strided || w.format != plain_format(compute)) {
      const DecodeFn decode = call.target.decode[static_cast<int>(w.format)][static_cast<int>(compute)];
      std::int64_t at = 0;
      visit_runs(w.strided, 1, begin * width, (begin + n) * width, [&](const std::int64_t* offset, std::int64_t run) {
        decode(static_cast<const char*>(w.data) + offset[0] * item_size(w.format), run_stride(w.strided, 0), run,
               buffer + at);
        at += run;
      });
      x = buffer;
    }
    sum[blocks++] = slow ? slow_block(call, scale, x, n, w.is_complex) : block(x, n);
  }
  return fold_tree(call.kind, sum, blocks);
}

std::vector<double> norm_sums(const std::vector<NormWork>& work, const NormCall& call) {
  std::vector<std::int64_t> numels;
  numels.reserve(work.size());
  for (const NormWork& w : work) {
    numels.push_back(w.is_complex && call.kind == Kind::two ? 2 * w.numel : w.numel);
  }
  const Plan plan(numels);
  std::vector<double> chunk_sum(plan.chunks());
  parallel(threads_for(plan), [&](int thread, int threads) {
    const auto [first, last] = plan.span(thread, threads);
    plan.visit(first, last, false, [&](std::int64_t chunk, const Chunk& c) {
      const NormWork& w = work[c.tensor];
      const double scale = call.scale.empty() ? 1.0 : call.scale[c.tensor];
      chunk_sum[chunk] = compute_type(w.format) == DType::float32 ? norm_chunk<float>(call, w, scale, c.begin, c.end)
                                                                  : norm_chunk<double>(call, w, scale, c.begin, c.end);
    });
  });
  std::vector<double> sums(work.size());
  for (std::size_t t = 0; t < work.size(); ++t) {
    const std::int64_t first = plan.first_chunk(t);
    sums[t] = fold_tree(call.kind, chunk_sum.data() + first, plan.first_chunk(t + 1) - first);
  }
  return sums;
}

// Scaled by the largest value, no power overflows; a zero or non-finite largest value is the norm itself.
double pow_norm(const std::vector<double>& x, double p) {
  double largest = 0.0;
  for (const double v : x) largest = combine(Kind::inf, v, largest);
  if (largest == 0.0 || !std::isfinite(largest)) return largest;
  double sum = 0.0;
  for (const double v : x) sum += std::pow(v / largest, p);
  return largest * std::pow(sum, 1.0 / p);
}

std::vector<double> pow_norms(const std::vector<NormWork>& work, double p) {
  const TargetTable& target = target_for_call();
  const std::vector<double> largest = norm_sums(work, {target, Kind::inf});
  std::vector<double> out = norm_sums(work, {target, Kind::pow, p, largest});
  for (std::size_t t = 0; t < work.size(); ++t) {
    const bool as_is = largest[t] == 0.0 || !std::isfinite(largest[t]);
    out[t] = as_is ? largest[t] : largest[t] * std::pow(out[t], 1.0 / p);
  }
  return out;
}

Kind kind_of(double norm_type) {
  return norm_type == 1.0 ? Kind::one : norm_type == 2.0 ? Kind::two : std::isinf(norm_type) ? Kind::inf : Kind::pow;
}

}  // namespace

std::vector<double> run_sums(const std::vector<NormWork>& work, double norm_type) {
  const Kind kind = kind_of(norm_type);
  return kind == Kind::pow ? pow_norms(work, norm_type) : norm_sums(work, {target_for_call(), kind});
}

std::vector<double> add_ranks(const std::vector<std::vector<double>>& sums, double norm_type) {
  const Kind kind = kind_of(norm_type);
  std::vector<double> out;
  for (const std::vector<double>& rank : sums) {
    if (kind == Kind::pow) {  // norms, which do not add up: each stays one of its own
      out.insert(out.end(), rank.begin(), rank.end());
      continue;
    }
    out.resize(std::max(out.size(), rank.size()));
    for (std::size_t t = 0; t < rank.size(); ++t) out[t] = combine(kind, out[t], rank[t]);
  }
  return out;
}

Norms fold_sums(std::vector<double> sums, double norm_type) {
  const Kind kind = kind_of(norm_type);
  Norms out{std::move(sums), 0.0};
  if (kind == Kind::pow) {
    out.total = pow_norm(out.each, norm_type);
    return out;
  }
  std::vector<double> tree = out.each;
  out.total = fold_tree(kind, tree.data(), static_cast<std::int64_t>(tree.size()));
  if (kind == Kind::two) {
    out.total = std::sqrt(out.total);
    for (double& x : out.each) x = std::sqrt(x);
  }
  return out;
}

}  // namespace fusedstep
