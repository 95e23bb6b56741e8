#include "runtime.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

#include "launch.h"

namespace fusedstep::cuda {
namespace {

int current_device() {
  int device = 0;
  FS_CUDA(cudaGetDevice, &device);
  return device;
}

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

struct Kept {
  std::vector<std::byte> bytes;
  void* memory;
  cudaStream_t stream;  // that filled it
  cudaEvent_t filled;
};

// More would be a program that runs hundreds of optimizers in turn; the oldest then makes room.
constexpr std::size_t kMostKept = 64;

struct Keeper {
  std::deque<std::shared_ptr<Kept>> tables;  // the last used at the end
  std::deque<std::size_t> seen;              // hashes: a wrong match only keeps a table too early
};

std::size_t hash(const std::vector<std::byte>& bytes) {
  std::uint64_t h = bytes.size();
  for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
    std::uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    h = (h ^ word) * 0x9E3779B97F4A7C15u;
    h ^= h >> 29;
  }
  return h;
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

void fill(void* to, const std::vector<std::byte>& bytes, cudaStream_t stream) {
  using Fill = Args<FillHead, kLargeArgs>;
  auto args = std::make_unique<Fill>();
  for (std::size_t done = 0; done < bytes.size(); done += sizeof args->bytes) {
    args->head.to = static_cast<std::byte*>(to) + done;
    args->head.size = static_cast<std::uint32_t>(std::min(sizeof args->bytes, bytes.size() - done));
    std::memcpy(args->bytes, bytes.data() + done, args->head.size);
    const unsigned blocks = (args->head.size + 4 * kThreads - 1) / (4 * kThreads);
    launch(fill_kernel(), "cudaLaunchKernelEx(fill)", blocks, kThreads, stream, args.get());
  }
}

std::shared_ptr<const void> kept_copy(const std::vector<std::byte>& bytes, cudaStream_t stream) {
  static std::mutex& mutex = *new std::mutex;
  static std::map<int, Keeper>& keepers = *new std::map<int, Keeper>;
  const std::lock_guard lock(mutex);
  Keeper& keeper = keepers[current_device()];
  const auto memory_of = [](const std::shared_ptr<Kept>& kept) {
    return std::shared_ptr<const void>(kept, kept->memory);
  };
  const auto known = std::find_if(keeper.tables.begin(), keeper.tables.end(),
                                  [&bytes](const auto& kept) { return kept->bytes == bytes; });
  if (known != keeper.tables.end()) {
    std::rotate(known, known + 1, keeper.tables.end());
    const std::shared_ptr<Kept>& kept = keeper.tables.back();
    if (kept->stream != stream) FS_CUDA(cudaStreamWaitEvent, stream, kept->filled, 0);
    return memory_of(kept);
  }
  const std::size_t key = hash(bytes);
  const auto before = std::find(keeper.seen.begin(), keeper.seen.end(), key);
  if (before == keeper.seen.end()) {
    keeper.seen.push_back(key);
    if (keeper.seen.size() > kMostKept) keeper.seen.pop_front();
    return nullptr;
  }
  if (keeper.tables.size() >= kMostKept) {
    // One that a call has in hand but has not launched with must stay.
    const auto idle = std::find_if(keeper.tables.begin(), keeper.tables.end(),
                                   [](const auto& kept) { return kept.use_count() == 1; });
    if (idle != keeper.tables.end()) {
      FS_CUDA(cudaFree, (*idle)->memory);  // waits for the device, and so for every kernel that reads it
      cudaEventDestroy((*idle)->filled);
      keeper.tables.erase(idle);
    }
  }
  auto fresh = std::make_shared<Kept>(Kept{bytes, nullptr, stream, nullptr});
  FS_CUDA(cudaMalloc, &fresh->memory, bytes.size());
  try {
    FS_CUDA(cudaEventCreateWithFlags, &fresh->filled, cudaEventDisableTiming);
    fill(fresh->memory, bytes, stream);
    FS_CUDA(cudaEventRecord, fresh->filled, stream);
  } catch (...) {
    if (fresh->filled) cudaEventDestroy(fresh->filled);
    cudaFree(fresh->memory);
    throw;
  }
  keeper.seen.erase(before);
  keeper.tables.push_back(fresh);
  return memory_of(fresh);
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
