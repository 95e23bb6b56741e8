#include "tiles.h"

#include <algorithm>
#include <iterator>

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

void step_tiles(const TargetTable& target, StepFn kernel, const Tensor& w, std::int64_t begin, std::int64_t end) {
  Tile tile(target, w);
  for (; begin < end; begin += tile.size()) {
    const std::int64_t n = std::min(tile.size(), end - begin);
    tile.decode(begin, n);
    kernel(w.uniform, tile.streams(), n);
    tile.encode(begin, n);
  }
}

// The elements of a Place end at a multiple of this.
constexpr std::int64_t kPlaces = std::int64_t{1} << 33;
std::int64_t places_left(std::int64_t index) { return kPlaces - index % kPlaces; }

// The loop of these formats for elements [begin, end), if the target has one.
const FusedStep* fused_step(const TargetTable& target, const Tensor& w, std::int64_t begin, std::int64_t end) {
  if (w.strided || end - begin > places_left(w.origin + begin)) return nullptr;
  const auto fits = [&w](const FusedStep& f) {
    return f.rule == w.rule && std::equal(w.stream, w.stream + w.streams, f.format,
                                          [](const Stream& s, Format format) { return s.format == format; });
  };
  const auto found = std::find_if(std::begin(target.fused), std::end(target.fused), fits);
  return found == std::end(target.fused) ? nullptr : found;
}

std::uint64_t key_of(const Tensor& w, int stream) {
  if (!facts(w.stream[stream].format).draws) return 0;
  return array_key(w.uniform->step_key, w.id, stream == 0 ? 0 : stream - 1);
}

void step_fused(const FusedStep& fused, const Tensor& w, std::int64_t begin, std::int64_t end) {
  void* streams[kMaxStreams];
  std::uint64_t keys[kMaxStreams];
  for (int k = 0; k < w.streams; ++k) {
    streams[k] = static_cast<char*>(w.stream[k].data) + begin * item_size(w.stream[k].format);
    keys[k] = key_of(w, k);
  }
  fused.step(w.uniform, streams, end - begin, keys, w.origin + begin);
}

}  // namespace

Tile::Tile(const TargetTable& target, const Tensor& w) : work_(w) {
  const int bytes = size_of(w.compute);
  for (int k = 0; k < w.streams; ++k) {
    const Stream& s = w.stream[k];
    const int format = static_cast<int>(s.format);
    Mover& m = mover_[k];
    m = {static_cast<char*>(s.data), memory_ + k * largest_tile() * bytes,
         item_size(s.format),        run_stride(w.strided, k),
         target.decode[format],      target.encode[format]};
    m.stays = !w.strided && s.format == plain_format(w.compute);
    m.key = key_of(w, k);
    m.draws = facts(s.format).draws;
    m.is_read_only = k == kGradient || (k > 0 && k == w.mask) || (w.follows && k == 0);
    streams_[k] = m.tile;
    size_ = std::min<std::int64_t>(size_, facts(s.format).tile);
  }
}

void Tile::decode(std::int64_t begin, std::int64_t n, int first, int last) {
  const int bytes = size_of(work_.compute);
  std::int64_t at = 0;
  visit_runs(work_.strided, work_.streams, begin, begin + n, [&](const std::int64_t* offset, std::int64_t run) {
    for (int k = first; k < std::min(last, work_.streams); ++k) {
      const Mover& m = mover_[k];
      char* const data = m.data + offset[k] * m.item_size;
      if (m.stays) {
        streams_[k] = data;
      } else {
        m.decode(data, m.stride, run, m.tile + at * bytes);
      }
    }
    at += run;
  });
}

void Tile::encode(std::int64_t begin, std::int64_t n, int first, int last) {
  const int bytes = size_of(work_.compute);
  const std::int64_t apart = run_stride(work_.strided, kPlace);
  std::int64_t at = 0;
  visit_runs(work_.strided, work_.streams, begin, begin + n, [&](const std::int64_t* offset, std::int64_t run) {
    for (int k = first; k < std::min(last, work_.streams); ++k) {
      const Mover& m = mover_[k];
      if (m.is_read_only || m.stays) continue;
      const std::int64_t place = work_.origin + offset[kPlace];
      for (std::int64_t done = 0, n; done < run; done += n) {
        const std::int64_t index = place + done * apart;
        n = !m.draws ? run : apart == 1 ? std::min(run - done, places_left(index)) : 1;
        m.encode(m.tile + (at + done) * bytes, n, m.data + (offset[k] + done * m.stride) * m.item_size, m.stride,
                 Place(m.key, index));
      }
    }
    at += run;
  });
}

void step_apart(const TargetTable& target, StepFn kernel, const Tensor& w, std::int64_t begin, std::int64_t end) {
  const Format plain = plain_format(w.compute);
  const auto is_plain = [plain](const Stream& s) { return s.format == plain; };
  if (const FusedStep* const fused = fused_step(target, w, begin, end)) {
    step_fused(*fused, w, begin, end);
  } else if (w.strided && std::all_of(w.stream, w.stream + w.streams, is_plain) && has_flat_rows(w)) {
    step_rows(kernel, w, begin, end);
  } else {
    step_tiles(target, kernel, w, begin, end);
  }
}

}  // namespace fusedstep
