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
        direction_(target.direction[w.rule][static_cast<int>(w.compute)]),
        tile_(target, w) {}

  std::int64_t size() const { return tile_.size(); }

  void step(std::int64_t begin, std::int64_t n, Sums* sums) {
    tile_.decode(begin, n);
    if (!w_.follows) move(n, sums);
    if (w_.average == 0) return tile_.encode(begin, n);
    if (!tile_.is_in_place(0) && !w_.follows) {  // the average is of what is stored
      tile_.encode(begin, n, 0, w_.average);
      tile_.decode(begin, n, 0, 1);
    } else {
      tile_.encode(begin, n, 0, w_.average);
    }
    ride_.average(*w_.uniform, tile_.streams()[0], n, tile_.streams()[w_.average]);
    tile_.encode(begin, n, w_.average);
  }

 private:
  void move(std::int64_t n, Sums* sums) {
    void* const p = tile_.streams()[0];
    const void* g = tile_.streams()[kGradient];
    const void* keep = nullptr;
    if (w_.mask > 0) keep = tile_.streams()[w_.mask];
    if (w_.nonzero) {
      ride_.keep_nonzero(p, n, kept_);
      keep = kept_;
    }
    if (sums) {
      if (keep) {
        ride_.mask(keep, g, n, gradient_);
        g = gradient_;
      }
      ride_.add_squares(p, n, sums->lanes[kParamNorm]);
      ride_.add_squares(g, n, sums->lanes[kGradNorm]);
      ride_.add_counts(*w_.uniform, g, n, sums->counts);
    }
    ride_.before(*w_.uniform, keep, p, g, n, direction_of_, gradient_);
    const int states = w_.rule_streams() - kFirstState;
    void* streams[kMaxStreams] = {direction_of_, gradient_};
    std::copy_n(tile_.streams() + kFirstState, states, streams + kFirstState);
    direction_(w_.uniform, streams, n);
    ride_.after(*w_.uniform, keep, gradient_, direction_of_, n, p, streams + kFirstState, states);
    if (!sums) return;
    ride_.add_squares(direction_of_, n, sums->lanes[kUpdateNorm]);
    sums->largest = fold<Norm::inf>(ride_.largest(direction_of_, n), sums->largest);
  }

  using Memory = char[largest_tile() * sizeof(double)];
  const Tensor& w_;
  const RideTable& ride_;
  const StepFn direction_;
  Tile tile_;
  alignas(64) Memory direction_of_;
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
