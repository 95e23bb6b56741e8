#include <algorithm>
#include <cmath>

#include "dispatch.h"
#include "run.h"
#include "walk.h"

namespace fusedstep {
namespace {

struct NormCall {
  const TargetTable& target;
  Norm norm;
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
    sum = fold(call.norm, call.norm == Norm::pow ? std::pow(a / scale, call.p) : a, sum);
  }
  return sum;
}

// Elements [begin, begin + n) of stream k of a layout, decoded side by side.
template <class T>
void gather(const TargetTable& target, const Tensor& w, const Stream& s, int k, int streams, std::int64_t begin,
            std::int64_t n, T* to) {
  const DecodeFn decode = target.decode[static_cast<int>(s.format)];
  visit_runs(w.row_major, streams, begin, begin + n, [&](const std::int64_t* offset, std::int64_t run) {
    decode(static_cast<const char*>(s.data) + offset[k] * item_size(s.format), run_stride(w.row_major, k), run, to);
    to += run;
  });
}

// Elements [begin, begin + n) of a real gradient, in `x`, but 0 where a mask leaves them out. On its own, so that its
// frame is not that of other gradients.
template <class T>
#if defined(__GNUC__)
__attribute__((noinline))
#endif
void leave_out(const TargetTable& target, const Tensor& w, const Stream& kept, std::int64_t begin, std::int64_t n,
               T* x) {
  const RideTable& ride = target.ride[sizeof(T) == 4 ? 0 : 1];
  T keep[kNormBlock];
  gather(target, w, kept, 1, 2, begin, n, keep);
  if (w.nonzero) ride.keep_nonzero(keep, n, keep);
  ride.mask(keep, x, n, x);
}

// Of the gradient, in logical (row-major) order whatever its layout. A complex number is a pair; its |z| counts unless
// the norm is the 2-norm, which is that of the real and imaginary parts.
template <class T>
double sum_chunk(const NormCall& call, const Tensor& w, double scale, std::int64_t begin, std::int64_t end) {
  constexpr Compute compute = sizeof(T) == 4 ? Compute::float32 : Compute::float64;
  const Stream& g = w.stream[1];
  const Stream* const kept = w.kept_by();
  const int width = w.is_complex && call.norm != Norm::two ? 2 : 1;  // Ts per element
  const bool slow = call.norm == Norm::pow || width == 2;
  const NormFn block = slow ? nullptr : call.target.norm[static_cast<int>(call.norm)][static_cast<int>(compute)];
  double sum[kChunk / kNormBlock];
  std::int64_t blocks = 0;
  T buffer[2 * kNormBlock];
  for (; begin < end; begin += kNormBlock) {
    const std::int64_t n = std::min<std::int64_t>(kNormBlock, end - begin);
    const T* x = static_cast<const T*>(g.data) + begin * width;
    if (w.row_major || kept || g.format != plain_format(compute)) {
      gather(call.target, w, g, 0, kept ? 2 : 1, begin * width, n * width, buffer);
      x = buffer;
    }
    if (kept) leave_out(call.target, w, *kept, begin, n, buffer);
    sum[blocks++] = slow ? slow_block(call, scale, x, n, w.is_complex) : block(x, n);
  }
  return fold_tree(call.norm, sum, blocks);
}

std::vector<double> norm_sums(const std::vector<const Tensor*>& work, const NormCall& call) {
  std::vector<std::int64_t> numels;
  numels.reserve(work.size());
  for (const Tensor* w : work) numels.push_back(w->is_complex && call.norm != Norm::two ? w->numel / 2 : w->numel);
  const Plan plan(numels);
  std::vector<double> chunk_sum(plan.chunks());
  parallel(threads_for(plan), [&](int thread, int threads) {
    const auto [first, last] = plan.span(thread, threads);
    plan.visit(first, last, false, [&](std::int64_t chunk, const Chunk& c) {
      const Tensor& w = *work[c.tensor];
      const double scale = call.scale.empty() ? 1.0 : call.scale[c.tensor];
      chunk_sum[chunk] = compute_type(w.stream[1].format) == Compute::float32
                             ? sum_chunk<float>(call, w, scale, c.begin, c.end)
                             : sum_chunk<double>(call, w, scale, c.begin, c.end);
    });
  });
  std::vector<double> sums(work.size());
  for (std::size_t t = 0; t < work.size(); ++t) {
    const std::int64_t first = plan.first_chunk(t);
    sums[t] = fold_tree(call.norm, chunk_sum.data() + first, plan.first_chunk(t + 1) - first);
  }
  return sums;
}

std::vector<double> pow_norms(const std::vector<const Tensor*>& work, double p) {
  const TargetTable& target = target_for_call();
  const std::vector<double> largest = norm_sums(work, {target, Norm::inf});
  std::vector<double> out = norm_sums(work, {target, Norm::pow, p, largest});
  for (std::size_t t = 0; t < work.size(); ++t) {
    const bool as_is = largest[t] == 0.0 || !std::isfinite(largest[t]);
    out[t] = as_is ? largest[t] : largest[t] * std::pow(out[t], 1.0 / p);
  }
  return out;
}

}  // namespace

std::vector<double> run_sums(const std::vector<Tensor>& tensors, double norm_type) {
  std::vector<const Tensor*> work;
  work.reserve(tensors.size());
  for (const Tensor& t : tensors) {
    if (t.normed()) work.push_back(&t);
  }
  const Norm norm = norm_of(norm_type);
  return norm == Norm::pow ? pow_norms(work, norm_type) : norm_sums(work, {target_for_call(), norm});
}

}  // namespace fusedstep
