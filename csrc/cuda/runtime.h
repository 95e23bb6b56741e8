// What the CUDA runtime is used through: errors as exceptions, the current device restored, memory in stream order.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>

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

  std::byte* at(std::size_t offset) const { return memory_ ? static_cast<std::byte*>(memory_) + offset : nullptr; }

 private:
  void* memory_ = nullptr;
  cudaStream_t stream_ = nullptr;
  int device_ = 0;  // a null stream means another one on each device
};

// Lets this thread load kernels and make pools while its stream is captured, for a scope: none of that becomes part of
// the graph.
class RelaxedCapture {
 public:
  RelaxedCapture();
  ~RelaxedCapture();
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  cudaStreamCaptureMode before_ = cudaStreamCaptureModeRelaxed;
};

// `later` goes on when what is on `earlier` now has been done; each on its own device.
void order(int earlier_device, cudaStream_t earlier, int later_device, cudaStream_t later);

int current_device();
int multiprocessors();  // of the current device

}  // namespace fusedstep::cuda
