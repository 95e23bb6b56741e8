// What a call is asked to do with a group of tensors, and the numbers that they share.
#pragma once
#include "../kernels/prepare.h"
#include "scalar.h"

namespace fusedstep {

struct Options {
  StepOptions host;
  Scalar lr = {};  // on the device, instead of host.hyper[0]
  // The rule's, where the tensors are, which a call that has some of them moves one step on; null: it has fewer.
  Scalar scalars[kMaxGroupScalars] = {};

  bool has_scalars() const { return scalars[0].at != nullptr; }
};

}  // namespace fusedstep
