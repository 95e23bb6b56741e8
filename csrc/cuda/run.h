// One call on GPUs: norms and a step over the tensors of one or several devices. Free of CUDA's own types; without CUDA
// the same functions exist and say so (absent.cpp).
#pragma once
#include <memory>
#include <string>

#include "../call/call.h"

namespace fusedstep::cuda {

// "" in a build without CUDA, else the runtime's version; "host" in the build that runs the kernels on the CPU.
std::string built_with();
int device_count();  // 0 without a driver, too

// Whether work put on this stream now becomes a graph.
bool is_capturing(int device, void* stream);

// One number from the device, waiting for the stream.
double read(const Scalar& scalar, int device, void* stream);

// What the shards of tensors add to their norms, ranks x count, added up in the order of the ranks; on this device.
void add_ranks(const double* rows, std::uint32_t ranks, std::uint32_t count, double* out, double norm_type, int device,
               void* stream);

// Orders 1, 2 and inf.
std::unique_ptr<Run> start(Call& call);

}  // namespace fusedstep::cuda
