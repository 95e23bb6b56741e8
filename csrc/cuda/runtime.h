// What the CUDA runtime is used through: errors as exceptions, the current device restored, memory in stream order.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <vector>

namespace fusedstep::cuda {

// Throws std::runtime_error naming the call, the error and the device.
void check(cudaError_t status, const char* call);
#define FS_CUDA(call, ...) ::fusedstep::cuda::check(call(__VA_ARGS__), #call)

// Makes a device current for a scope.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_;
};

// Memory of the current device for the work that is put on a stream between its birth and its end, from a pool of our
// own. In a capture it becomes part of the graph.
class Scratch {
 public:
  Scratch() = default;
  Scratch(std::size_t bytes, cudaStream_t stream);
  Scratch(Scratch&& other) noexcept;
  Scratch& operator=(Scratch&& other) noexcept;
  ~Scratch();

  std::byte* at(std::size_t offset) const { return static_cast<std::byte*>(memory_) + offset; }

 private:
  void* memory_ = nullptr;
  cudaStream_t stream_ = nullptr;
  int device_ = 0;  // a null stream means another one on each device
};

// Puts bytes into memory of the current device by kernel arguments alone.
void fill(void* to, const std::vector<std::byte>& bytes, cudaStream_t stream);

// A copy in memory of the current device of bytes that come back step after step, or null while they have not been seen
// before. Compared whole with what is there, so that nothing in it can be out of date. Not for captures: a graph
// outlives what is kept here.
const void* kept_copy(const std::vector<std::byte>& bytes, cudaStream_t stream);

int multiprocessors();  // of the current device

}  // namespace fusedstep::cuda
