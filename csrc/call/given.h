// Tensors as they were given, and how they become those of a call.
#pragma once
#include <cstdint>
#include <vector>

#include "array.h"
#include "call.h"
#include "group.h"
#include "layout.h"

namespace fusedstep {

struct Given {
  Array array[kMaxStreams];  // parameter, gradient, state, mask, average
  const Group* group;
  std::uint32_t options;  // index among the call's
  std::int64_t index, step;
  std::int64_t id = 0;   // Tensor::id
  std::int64_t row = 0;  // among all parameters, with or without a gradient: of its statistics
  Scalar step_at;        // on a device, instead of `step`
  Scalar scalars[kMaxScalars];
  bool host_step, fresh;  // counted on the host; with state that this call makes
  bool has_mask = false, has_average = false;
  const Shard* shard = nullptr;  // of a tensor that draws and is one of several shards
  bool follows = false;          // without a gradient: array 1 is the parameter, and what follows is its average

  int device() const { return array[0].device; }
  int rule_streams() const { return follows ? 2 : group->streams(); }
  int mask() const { return has_mask ? rule_streams() : 0; }
  int average() const { return has_average ? rule_streams() + has_mask : 0; }
  int streams() const { return rule_streams() + has_mask + has_average; }
  // Of array k, or of the tensor as one parameter.
  Where where(int k = 0) const;
  // Of state k of one number.
  Where where_number(int k) const;
};

// The tensors of the call, once the arrays are known not to share memory. `given` must stay in place.
void collect(const std::vector<Given>& given, Call& call);
// Errors about a number that is to be written where its tensor is.
void check_beside(const Array& a, const Where& where, const Given& tensor);
// Errors for a complex parameter, for `what` orders or leaves out single numbers; for what rides along with its group.
void check_real(const Given& t, const char* what);
void check_rides(const Given& t);
// Errors about norms that CUDA devices do not have.
void check_cuda_norms(const std::vector<Given>& given, const Call& call);
// Errors about what a graph would not repeat: a graph has no place for what the host does once, or counts. `obstacle`:
// what else speaks against it, or null.
void check_captured(const std::vector<Given>& given, const Call& call, const char* obstacle);

}  // namespace fusedstep
