#include "runtime.h"

#include <cstdint>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace fusedstep::cuda {
namespace {

// The default pool returns memory to the system at every synchronisation, and changing that would change it for the
// whole process.
cudaMemPool_t pool_of(int device) {
  static std::mutex& mutex = *new std::mutex;  // never destroyed: a daemon thread may go on while the process exits
  static std::map<int, cudaMemPool_t>& pools = *new std::map<int, cudaMemPool_t>;
  const std::lock_guard lock(mutex);
  if (const auto known = pools.find(device); known != pools.end()) return known->second;
  cudaMemPoolProps props{};
  props.allocType = cudaMemAllocationTypePinned;
  props.location.type = cudaMemLocationTypeDevice;
  props.location.id = device;
  cudaMemPool_t pool = nullptr;
  FS_CUDA(cudaMemPoolCreate, &pool, &props);
  std::uint64_t keep = UINT64_MAX;
  FS_CUDA(cudaMemPoolSetAttribute, pool, cudaMemPoolAttrReleaseThreshold, &keep);
  return pools[device] = pool;
}

class Event {
 public:
  Event() { FS_CUDA(cudaEventCreateWithFlags, &event_, cudaEventDisableTiming); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  cudaEvent_t get() const { return event_; }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace

int current_device() {
  int device = 0;
  FS_CUDA(cudaGetDevice, &device);
  return device;
}

void check(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // or the next call would report it again
  int device = -1;
  if (cudaGetDevice(&device) != cudaSuccess) cudaGetLastError();
  const std::string where = device < 0 ? "" : " on cuda:" + std::to_string(device);
  throw std::runtime_error(std::string(call) + " failed" + where + ": " + cudaGetErrorName(status) + " (" +
                           cudaGetErrorString(status) + ")");
}

DeviceGuard::DeviceGuard(int device) : before_(current_device()) {
  if (device != before_) FS_CUDA(cudaSetDevice, device);
}

// Setting a device makes a context on it, which the one before may not have had.
DeviceGuard::~DeviceGuard() {
  int now = 0;
  if (cudaGetDevice(&now) == cudaSuccess && now != before_) cudaSetDevice(before_);
}

Scratch::Scratch(std::size_t bytes, cudaStream_t stream) : stream_(stream), device_(current_device()) {
  if (bytes > 0) FS_CUDA(cudaMallocFromPoolAsync, &memory_, bytes, pool_of(device_), stream);
}

Scratch::Scratch(Scratch&& other) noexcept { *this = std::move(other); }

Scratch& Scratch::operator=(Scratch&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(stream_, other.stream_);
  std::swap(device_, other.device_);
  return *this;
}

Scratch::~Scratch() {
  if (!memory_) return;
  try {
    const DeviceGuard guard(device_);
    cudaFreeAsync(memory_, stream_);
  } catch (...) {  // the device has failed, and said so before
  }
}

RelaxedCapture::RelaxedCapture() { FS_CUDA(cudaThreadExchangeStreamCaptureMode, &before_); }
RelaxedCapture::~RelaxedCapture() { cudaThreadExchangeStreamCaptureMode(&before_); }

void order(int earlier_device, cudaStream_t earlier, int later_device, cudaStream_t later) {
  const DeviceGuard guard(earlier_device);
  const Event event;
  FS_CUDA(cudaEventRecord, event.get(), earlier);
  const DeviceGuard other(later_device);
  FS_CUDA(cudaStreamWaitEvent, later, event.get(), 0);
}

int multiprocessors() {
  int count = 0;
  FS_CUDA(cudaDeviceGetAttribute, &count, cudaDevAttrMultiProcessorCount, current_device());
  return count;
}

}  // namespace fusedstep::cuda
