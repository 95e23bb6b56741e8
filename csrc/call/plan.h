// The tensors of one call as a flat list of chunks, shared by every backend. Chunks are counted, not stored: a billion
// parameters cost two numbers per tensor. Pure: no pointer, dtype or device.
#pragma once
#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace fusedstep {

// Elements per chunk: 8 norm blocks, so that a chunk is an aligned subtree of the sum, and AdamW's seven float32
// streams of one chunk (448 KB) stay near a core's L2 between the parts of a call.
inline constexpr std::int64_t kChunk = 16384;

inline constexpr std::int64_t chunks_of(std::int64_t numel) { return (numel + kChunk - 1) / kChunk; }

struct Chunk {
  std::int64_t tensor, begin, end;
};

class Plan {
 public:
  explicit Plan(const std::vector<std::int64_t>& numels);

  std::int64_t elements() const { return first_element_.back(); }
  std::int64_t chunks() const { return first_chunk_.back(); }
  std::int64_t first_chunk(std::int64_t tensor) const { return first_chunk_[tensor]; }

  // The chunks [first, last) of one of `parts` workers: contiguous, and even in elements rather than in chunks.
  std::pair<std::int64_t, std::int64_t> span(int part, int parts) const;

  // Visits the chunks [first, last), the last one first if `reverse`.
  template <class Visit>
  void visit(std::int64_t first, std::int64_t last, bool reverse, Visit&& visit) const {
    if (first >= last) return;
    std::int64_t tensor = tensor_of(reverse ? last - 1 : first);
    for (std::int64_t k = first; k < last; ++k) {
      const std::int64_t chunk = reverse ? last - 1 - (k - first) : k;
      while (chunk >= first_chunk_[tensor + 1]) ++tensor;
      while (chunk < first_chunk_[tensor]) --tensor;
      const std::int64_t begin = (chunk - first_chunk_[tensor]) * kChunk;
      visit(chunk, Chunk{tensor, begin, std::min(begin + kChunk, numel(tensor))});
    }
  }

 private:
  std::int64_t numel(std::int64_t tensor) const { return first_element_[tensor + 1] - first_element_[tensor]; }
  std::int64_t tensor_of(std::int64_t chunk) const;

  std::vector<std::int64_t> first_element_, first_chunk_;  // running totals, one more than tensors
};

}  // namespace fusedstep
