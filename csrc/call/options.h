// What a call is asked to do with a group of tensors.
#pragma once
#include "../kernels/prepare.h"
#include "scalar.h"

namespace fusedstep {

struct Options {
  StepOptions host;
  Scalar lr = {};  // on the device, instead of host.hyper[0]
};

}  // namespace fusedstep
