// Elements that no kernel can take where they lie: strided, or stored in another format than the compute type. They
// pass through a tile in L1: there is no second formula, and no copy of the tensor.
#pragma once
#include "../call/tensor.h"
#include "../kernels/table.h"

namespace fusedstep {

inline constexpr int kGradient = 1, kFirstState = 2;  // streams

// The streams of one tensor in the compute type, size() elements at a time.
class Tile {
 public:
  Tile(const TargetTable& target, const Tensor& work);
  std::int64_t size() const { return size_; }
  void* const* streams() const { return streams_; }

  // Streams `first` to `last` - 1 of elements [begin, begin + n). Gradient and mask are never written.
  void decode(std::int64_t begin, std::int64_t n, int first = 0, int last = kMaxStreams);
  void encode(std::int64_t begin, std::int64_t n, int first = 0, int last = kMaxStreams);

 private:
  struct Mover {
    char* data;
    char* tile;
    std::int64_t item_size, stride;
    DecodeFn decode;
    EncodeFn encode;
    std::uint64_t key = 0;  // of its random numbers
    bool draws = false;
    bool stays = false;  // where it is, as the kernel takes it
    bool is_read_only = false;
  };

  const Tensor& work_;
  std::int64_t size_ = largest_tile();
  Mover mover_[kMaxStreams];
  void* streams_[kMaxStreams];
  alignas(64) char memory_[kMaxStreams * largest_tile() * sizeof(double)];
};

// The step of such elements. On its own, so that the frame of a tile is not that of the flat loop.
void step_apart(const TargetTable& target, StepFn kernel, const Tensor& w, std::int64_t begin, std::int64_t end);

// That of a tensor with which something rides along, of a chunk. stats: null, or of the chunk's statistics number k is
// left at stats[k * apart], what is summed up not yet finished: squares, counts, the largest |d|.
void step_riding(const TargetTable& target, const Tensor& w, std::int64_t begin, std::int64_t end, double* stats,
                 std::int64_t apart);

}  // namespace fusedstep
