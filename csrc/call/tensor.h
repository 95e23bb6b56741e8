// The tensors of one call as data: where their arrays are, how they are stored and walked. No Python, no device.
#pragma once
#include <cstdint>
#include <vector>

#include "../formats/all.h"

namespace fusedstep {

// Where streams do not lie side by side in the same order: sizes and per-stream strides (elements), outermost first.
struct Strided {
  std::vector<std::int64_t> size;
  std::vector<std::int64_t> stride[kMaxStreams];
};

// One array of a tensor. Streams of one tensor may be stored in different formats.
struct Stream {
  void* data;
  Format format;
};

// One tensor of a step: its streams (parameter, gradient, state), flat unless `strided`.
struct StepWork {
  Stream stream[kMaxStreams];
  int streams;
  DType compute;
  int rule;
  std::int64_t numel;
  const void* uniform;
  const Strided* strided;
};

// One tensor of a norm, in logical (row-major) order whatever its layout.
struct NormWork {
  const void* data;
  Format format;
  bool is_complex;  // pairs; |z| unless the 2-norm, which is that of the real and imaginary parts
  std::int64_t numel;
  const Strided* strided;  // stride[0]
};

}  // namespace fusedstep
