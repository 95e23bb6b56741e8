// The step of a tensor with which something rides along (kernels/ride.h): a tile at a time, in L1, through loops that
// are the same for all rules, but for the one that makes d.
#include <algorithm>

#include "../call/norms.h"
#include "../call/plan.h"
#include "tiles.h"

namespace fusedstep {
namespace {

// What is known of one norm block, as it fills up.
struct Sums {
  double lanes[kStatNorms][kNormLanes] = {};
  double largest = 0.0;
  double counts[kStatCounts] = {};
};

class Riding {
 public:
  Riding(const TargetTable& target, const Tensor& w)
      : w_(w),
        ride_(target.ride[static_cast<int>(w.compute)]),
        step_(target.ride_step[w.rule][static_cast<int>(w.compute)]),
        tile_(target, w) {}

  // Twice as much where nothing has to be decoded: a call costs as much as the squares of 100 elements.
  std::int64_t size() const { return is_mixed(w_) || w_.strided ? tile_.size() : 2 * tile_.size(); }

  void step(std::int64_t begin, std::int64_t n, Sums* sums) {
    tile_.decode(begin, n);
    // An average is of the parameter as it is stored.
    const bool apart = w_.average > 0 && (w_.follows || w_.stream[0].format != plain_format(w_.compute));
    if (!w_.follows) move(n, apart, sums);
    tile_.encode(begin, n, 0, apart ? w_.average : kMaxStreams);
    if (!apart) return;
    if (!w_.follows) tile_.decode(begin, n, 0, 1);
    ride_.average(*w_.uniform, tile_.streams()[0], n, tile_.streams()[w_.average]);
    tile_.encode(begin, n, w_.average);
  }

 private:
  void move(std::int64_t n, bool average_is_apart, Sums* sums) {
    void* const* const streams = tile_.streams();
    const void* keep = w_.mask > 0 ? streams[w_.mask] : nullptr;
    if (sums) add_given(n, keep, *sums);
    const bool averages = w_.average > 0 && !average_is_apart;
    step_(*w_.uniform, streams, {keep, averages ? streams[w_.average] : nullptr, sums ? direction_ : nullptr}, n);
    if (!sums) return;
    const double all = ride_.add_squares(direction_, n, sums->lanes[kUpdateNorm], after(streams[0], n));
    sums->largest = fold<Norm::inf>(all == all ? ride_.largest(direction_, n) : all, sums->largest);
  }

  const void* after(const void* stream, std::int64_t n) const {
    return static_cast<const char*>(stream) + n * size_of(w_.compute);
  }

  // What is known before the step.
  void add_given(std::int64_t n, const void* keep, Sums& sums) {
    const void* const p = tile_.streams()[0];
    const void* g = tile_.streams()[kGradient];
    if (w_.nonzero) {
      ride_.keep_nonzero(p, n, kept_);
      keep = kept_;
    }
    if (keep) {
      ride_.mask(keep, g, n, gradient_);
      g = gradient_;
    }
    ride_.add_squares(p, n, sums.lanes[kParamNorm], tile_.streams()[kFirstState]);
    const double all = ride_.add_squares(g, n, sums.lanes[kGradNorm], tile_.streams()[kFirstState + 1]);
    if (w_.clips) ride_.add_clipped(*w_.uniform, g, n, &sums.counts[0]);
    if (all - all != 0.0) ride_.add_nonfinite(g, n, &sums.counts[1], &sums.counts[2]);
  }

  using Memory = char[2 * largest_tile() * sizeof(double)];
  const Tensor& w_;
  const RideTable& ride_;
  const RideFn step_;
  Tile tile_;
  alignas(64) Memory direction_;
  alignas(64) Memory gradient_;
  alignas(64) Memory kept_;
};

}  // namespace

void step_riding(const TargetTable& target, const Tensor& w, std::int64_t begin, std::int64_t end, double* stats,
                 std::int64_t apart) {
  Riding riding(target, w);
  double block[kStats][kChunk / kNormBlock] = {};
  std::int64_t blocks = 0;
  while (begin < end) {
    const std::int64_t stop = std::min(begin + kNormBlock, end);
    Sums sums;
    for (; begin < stop; begin += riding.size()) {
      riding.step(begin, std::min(riding.size(), stop - begin), stats ? &sums : nullptr);
    }
    begin = stop;
    if (!stats) continue;
    for (int k = 0; k < kStatNorms; ++k) block[k][blocks] = fold_lanes<Norm::one>(sums.lanes[k]);
    block[kUpdateMax][blocks] = sums.largest;
    for (int k = 0; k < kStatCounts; ++k) block[kClipped + k][blocks] = sums.counts[k];
    ++blocks;
  }
  if (!stats) return;
  for (int k = 0; k < kStats; ++k)
    stats[k * apart] = fold_tree(k == kUpdateMax ? Norm::inf : Norm::one, block[k], blocks);
}

}  // namespace fusedstep
