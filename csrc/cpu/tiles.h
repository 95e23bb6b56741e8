// The step of elements that no kernel can take where they lie: strided, or stored in another format than the compute
// type. On its own, so that the frame of its tiles is not that of the flat loop.
#pragma once
#include "../call/tensor.h"
#include "../kernels/table.h"

namespace fusedstep {

void step_apart(const TargetTable& target, StepFn kernel, const Tensor& w, std::int64_t begin, std::int64_t end);

}  // namespace fusedstep
