// Tables that stay in device memory from step to step.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace fusedstep::cuda {

// A copy in memory of the current device of bytes that come back step after step, or null while they have not been seen
// before. Compared whole with what is there, so that nothing in it can be out of date. To be held until what reads it
// has been launched. Not for captures: a graph outlives what is kept here.
std::shared_ptr<const void> kept_copy(const std::vector<std::byte>& bytes, cudaStream_t stream);

}  // namespace fusedstep::cuda
