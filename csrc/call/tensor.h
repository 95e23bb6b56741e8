// The tensors of one call as data: where their arrays are, how they are stored and walked. No Python, no device.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "../kernels/prepare.h"
#include "scalar.h"

namespace fusedstep {

// Where streams do not lie side by side in the same order: sizes and per-stream strides (elements), outermost first.
// Behind those of the streams, those of an element's index in the whole tensor; none: its row-major index here.
struct Strided {
  std::vector<std::int64_t> size;
  std::vector<std::int64_t> stride[kMaxStreams + 1];
};
inline constexpr int kPlace = kMaxStreams;

// A tensor that lies flat takes random numbers for so many elements at a time, none of them apart from the others.
inline constexpr std::int64_t kMostDrawn = 8;

// One array of a tensor. Streams of one tensor may be stored in different formats.
struct Stream {
  void* data;
  Format format;
};

// What is updated together. Of clipping in place and of norms alone, parameter and gradient are the same array.
struct Tensor {
  Stream stream[kMaxStreams];  // parameter, gradient, state, mask, average
  int streams;
  Compute compute;
  int rule;
  std::int64_t numel;           // real numbers: a complex one is two
  const UniformBytes* uniform;  // of rule and compute, where the host has prepared it
  const Strided* strided;       // of all streams; null: flat

  bool apart = false;  // no kernel takes it where it lies: strided, or some stream is not stored as it is computed with
  bool two_passes = false;             // its rule has sums
  const Strided* row_major = nullptr;  // of the gradient in logical order, as norms are; null: flat
  bool is_complex = false;
  bool rides = false;         // something rides along: no kernel of its rule alone does
  bool nonzero = false;       // what is 0 in the parameter is left out as by a mask
  bool clips = false;         // its gradient has a bound
  bool follows = false;       // it has no gradient: its average alone is updated, with the parameter in its place
  int mask = 0, average = 0;  // streams; 0: none
  std::int64_t stats = -1;    // the row of its statistics; -1: none
  int device = kHost;
  std::uint32_t options = 0;  // index among the call's
  std::int64_t step = 1;      // this is its step number so many
  std::int64_t id = 0;        // what random numbers know it by
  std::int64_t origin = 0;    // the index of the first element in the whole tensor, for them
  std::int32_t sum = -1;      // index of what it adds to the norm, among the call's sums; -1: it is no part of it
  Scalar step_at = {};        // on the device, instead of `step`: the number of steps before, which the call advances
  Scalar scalars[kMaxScalars] = {};  // the rule's states of one number, where the tensor is; null: it has fewer

  // The stream that tells which elements are kept, by not being 0 there; null: all are.
  const Stream* kept_by() const { return mask > 0 ? &stream[mask] : nonzero ? &stream[0] : nullptr; }
  int rule_streams() const { return streams - (mask > 0) - (average > 0); }
  bool has_scalars() const { return scalars[0].at != nullptr; }
  bool normed() const { return sum >= 0; }
};

// Whether some stream is not stored as it is computed with.
inline bool is_mixed(const Tensor& t) {
  return std::any_of(t.stream, t.stream + t.streams,
                     [&t](const Stream& s) { return s.format != plain_format(t.compute); });
}
// A fact of a tensor that follows from the others.
inline bool lies_apart(const Tensor& t) { return t.rides || t.strided || is_mixed(t); }

}  // namespace fusedstep
