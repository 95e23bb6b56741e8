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

Sums fold(const Sums* sums, std::int64_t n) {
  Sums out{};
  std::vector<double> one(n);
  for (int k = 0; k < kMaxSums; ++k) {
    for (std::int64_t i = 0; i < n; ++i) one[i] = sums[i][k];
    out[k] = fold_tree(Norm::one, one.data(), n);
  }
  return out;
}

}  // namespace

std::vector<double> run_first_pass(const std::vector<Tensor>& work, const Plan& plan) {
  const TargetTable& target = target_for_call();
  std::vector<Sums> chunk_sums(plan.chunks());
  parallel(threads_for(plan), [&](int thread, int threads) {
    const auto [first, last] = plan.span(thread, threads);
    plan.visit(first, last, false, [&](std::int64_t chunk, const Chunk& c) {
      const Tensor& w = work[c.tensor];
      if (!w.two_passes) return;
      Tile tile(target, w);
      Sums block[kChunk / kNormBlock];
      std::int64_t blocks = 0;
      for (std::int64_t begin = c.begin; begin < c.end; begin += kNormBlock) {
        block[blocks++] = measure_block(target, w, tile, begin, std::min(begin + kNormBlock, c.end));
      }
      chunk_sums[chunk] = fold(block, blocks);
    });
  });
  std::vector<double> out;
  for (std::size_t t = 0; t < work.size(); ++t) {
    const std::int64_t first = plan.first_chunk(t);
    const Sums sums = fold(chunk_sums.data() + first, plan.first_chunk(t + 1) - first);
    out.insert(out.end(), sums.begin(), sums.end());
  }
  return out;
}

}  // namespace fusedstep
