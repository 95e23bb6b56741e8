// The first pass of rules with sums. The sums have the shape of the norms, whatever the threads: lanes, blocks, a tree
// over the blocks of a chunk, a tree over chunks.
#include <algorithm>
#include <array>

#include "../call/norms.h"
#include "../kernels/table.h"
#include "dispatch.h"
#include "run.h"
#include "tiles.h"
#include "walk.h"

namespace fusedstep {
namespace {

using Sums = std::array<double, kMaxSums>;

// Tiles are whole rows of lanes, and blocks are whole tiles.
static_assert(std::ranges::all_of(FormatTable<AllFormats>::at, [](const FormatFacts& f) {
  return f.tile % kNormLanes == 0 && kNormBlock % f.tile == 0;
}));

// Elements [begin, end) of one block. The states are measured as they are stored.
Sums measure_block(const TargetTable& target, const Tensor& w, Tile& tile, std::int64_t begin, std::int64_t end) {
  const FirstPass& pass = target.first_pass[w.rule][static_cast<int>(w.compute)];
  double lanes[kMaxSums][kNormLanes] = {};
  for (; begin < end; begin += tile.size()) {
    const std::int64_t n = std::min(tile.size(), end - begin);
    tile.decode(begin, n);
    pass.move(w.uniform, tile.streams(), n);
    tile.encode(begin, n, kFirstState);
    tile.decode(begin, n, kFirstState);
    pass.measure(w.uniform, tile.streams(), n, lanes);
  }
  Sums out{};
  for (int k = 0; k < pass.sums; ++k) out[k] = fold_lanes<Norm::one>(lanes[k]);
  return out;
}

}  // namespace

void run_first_pass(const std::vector<Tensor>& work, const Plan& plan, double* sums) {
  const TargetTable& target = target_for_call();
  const std::int64_t chunks = plan.chunks();
  parallel(threads_for(plan), [&](int thread, int threads) {
    const auto [first, last] = plan.span(thread, threads);
    plan.visit(first, last, false, [&](std::int64_t chunk, const Chunk& c) {
      const Tensor& w = work[c.tensor];
      if (!w.two_passes) return;
      Tile tile(target, w);
      double block[kMaxSums][kChunk / kNormBlock];
      std::int64_t blocks = 0;
      for (std::int64_t begin = c.begin; begin < c.end; begin += kNormBlock) {
        const Sums of_block = measure_block(target, w, tile, begin, std::min(begin + kNormBlock, c.end));
        for (int k = 0; k < kMaxSums; ++k) block[k][blocks] = of_block[k];
        ++blocks;
      }
      for (int k = 0; k < kMaxSums; ++k) sums[k * chunks + chunk] = fold_tree(Norm::one, block[k], blocks);
    });
  });
  for (std::size_t t = 0; t < work.size(); ++t) {
    const std::int64_t first = plan.first_chunk(t);
    for (int k = 0; k < kMaxSums; ++k) {
      fold_tree(Norm::one, sums + k * chunks + first, plan.first_chunk(t + 1) - first);
    }
  }
}

}  // namespace fusedstep
