#include "tiles.h"

#include <algorithm>

#include "walk.h"

namespace fusedstep {
namespace {

// Rows of this many elements that lie flat in every stream (blocks of columns of one matrix) need no tile.
constexpr std::int64_t kFlatRow = 64;

bool has_flat_rows(const Tensor& w) {
  const Strided& s = *w.strided;
  return s.size.back() >= kFlatRow &&
         std::all_of(s.stride, s.stride + w.streams, [](const auto& stride) { return stride.back() == 1; });
}

void step_rows(StepFn kernel, const Tensor& w, std::int64_t begin, std::int64_t end) {
  const int size = size_of(w.compute);
  visit_runs(w.strided, w.streams, begin, end, [&](const std::int64_t* offset, std::int64_t run) {
    void* streams[kMaxStreams];
    for (int k = 0; k < w.streams; ++k) streams[k] = static_cast<char*>(w.stream[k].data) + offset[k] * size;
    kernel(w.uniform, streams, run);
  });
}

// How one stream is moved to its part of the tile and back.
struct Mover {
  char* data;
  char* tile;
  std::int64_t item_size, stride;
  DecodeFn decode;
  EncodeFn encode;
};

// No second formula, and no copy of the tensor.
void step_tiles(const TargetTable& target, StepFn kernel, const Tensor& w, std::int64_t begin, std::int64_t end) {
  constexpr int kTile = largest_tile();
  const int compute = static_cast<int>(w.compute), size = size_of(w.compute);
  alignas(64) char tile[kMaxStreams * kTile * sizeof(double)];
  Mover mover[kMaxStreams];
  void* streams[kMaxStreams];
  std::int64_t step = kTile;
  for (int k = 0; k < w.streams; ++k) {
    const Stream& s = w.stream[k];
    const int format = static_cast<int>(s.format);
    streams[k] = tile + k * kTile * size;
    mover[k] = {static_cast<char*>(s.data), tile + k * kTile * size,        item_size(s.format),
                run_stride(w.strided, k),   target.decode[format][compute], target.encode[format][compute]};
    step = std::min<std::int64_t>(step, facts(s.format).tile);
  }
  for (; begin < end; begin += step) {
    const std::int64_t n = std::min(step, end - begin);
    std::int64_t at = 0;
    visit_runs(w.strided, w.streams, begin, begin + n, [&](const std::int64_t* offset, std::int64_t run) {
      for (int k = 0; k < w.streams; ++k) {
        const Mover& m = mover[k];
        m.decode(m.data + offset[k] * m.item_size, m.stride, run, m.tile + at);
      }
      at += run * size;
    });
    kernel(w.uniform, streams, n);
    at = 0;
    visit_runs(w.strided, w.streams, begin, begin + n, [&](const std::int64_t* offset, std::int64_t run) {
      for (int k = 0; k < w.streams; ++k) {
        const Mover& m = mover[k];
        if (k != 1) m.encode(m.tile + at, run, m.data + offset[k] * m.item_size, m.stride);  // no gradient is written
      }
      at += run * size;
    });
  }
}

}  // namespace

void step_apart(const TargetTable& target, StepFn kernel, const Tensor& w, std::int64_t begin, std::int64_t end) {
  const Format plain = plain_format(w.compute);
  const auto is_plain = [plain](const Stream& s) { return s.format == plain; };
  if (w.strided && std::all_of(w.stream, w.stream + w.streams, is_plain) && has_flat_rows(w)) {
    step_rows(kernel, w, begin, end);
  } else {
    step_tiles(target, kernel, w, begin, end);
  }
}

}  // namespace fusedstep
