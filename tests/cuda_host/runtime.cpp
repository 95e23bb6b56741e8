// Devices, streams, events, memory and graphs of the host's CUDA. Operations wait in their stream until somebody
// synchronises; then a stream with work that may run is drawn at random, so that a missing event shows.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "host.h"

struct HostEvent {
  std::uint64_t recorded = 0, reached = 0;
};

namespace cuda_host {
namespace {

constexpr int kDevices = 3;

struct Operation {
  std::function<void()> run;
  std::shared_ptr<HostEvent> wait;
  std::uint64_t until = 0;
};

struct Queue {
  std::deque<Operation> operations;
  bool capturing = false;
  std::vector<Operation> captured;
};

struct Graph {
  std::vector<Operation> operations;
};

std::recursive_mutex mutex;
thread_local int device = 0;
std::uint64_t state = 88172645463325252u;
std::map<std::pair<int, cudaStream_t>, Queue> queues;
std::map<cudaEvent_t, std::shared_ptr<HostEvent>> events;
std::map<int, Graph> graphs;
std::map<std::string, int> failures;
std::set<void*> alive;
int launched = 0;
std::string error;

Queue& queue(cudaStream_t stream) { return queues[{device, stream}]; }

void put(cudaStream_t stream, Operation operation) {
  Queue& q = queue(stream);
  if (q.capturing) {
    q.captured.push_back(std::move(operation));
  } else {
    q.operations.push_back(std::move(operation));
  }
}

bool ready(const Queue& q) {
  if (q.operations.empty()) return false;
  const Operation& next = q.operations.front();
  return !next.wait || next.wait->reached >= next.until;
}

void drain(const std::function<bool()>& finished) {
  while (!finished()) {
    std::vector<Queue*> able;
    for (auto& [key, q] : queues) {
      if (ready(q)) able.push_back(&q);
    }
    if (able.empty()) throw std::runtime_error("streams wait for each other");
    Queue& q = *able[random() % able.size()];
    const Operation operation = std::move(q.operations.front());
    q.operations.pop_front();
    if (operation.run) operation.run();
  }
}

void* allocate(std::size_t bytes) {
  void* memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  std::memset(memory, 0xFF, bytes);  // NaNs, and counts past any end
  alive.insert(memory);
  return memory;
}

void release(void* memory) {
  if (alive.erase(memory) == 0) throw std::runtime_error("memory freed twice");
  std::free(memory);
}

}  // namespace

std::uint64_t random() {
  state ^= state << 13;
  state ^= state >> 7;
  return state ^= state << 17;
}

void seed(std::uint64_t value) { state = value * 2 + 1; }

cudaError_t inject(const char* call) {
  const auto f = failures.find(call);
  if (f == failures.end() || --f->second > 0) return cudaSuccess;
  failures.erase(f);
  return cudaErrorMemoryAllocation;
}

void fail(const std::string& call, int nth) { failures[call] = nth; }
int launches() { return launched; }
int allocations() { return static_cast<int>(alive.size()); }
std::string last_error() { return std::exchange(error, ""); }

cudaError_t enqueue_kernel(const cudaLaunchConfig_t& config, std::function<void()> thread) {
  const std::lock_guard lock(mutex);
  if (const cudaError_t injected = inject("cudaLaunchKernelEx")) return injected;
  ++launched;
  const auto run = [grid = config.gridDim, block = config.blockDim, thread = std::move(thread)] {
    std::vector<unsigned> order;
    for (unsigned b = 0; b < grid.x; ++b) order.push_back(b);
    for (unsigned b = grid.x; b > 1; --b) std::swap(order[b - 1], order[random() % b]);
    try {
      for (const unsigned b : order) run_block(thread, grid, block, b);
    } catch (const std::runtime_error& e) {
      error = e.what();
    }
  };
  put(config.stream, {run, nullptr});
  return cudaSuccess;
}

void synchronize() {
  const std::lock_guard lock(mutex);
  drain([] {
    return std::all_of(queues.begin(), queues.end(), [](const auto& q) { return q.second.operations.empty(); });
  });
}

void overwrite(std::uintptr_t address, std::size_t bytes, int on, std::uintptr_t stream) {
  queues[{on, reinterpret_cast<cudaStream_t>(stream)}].operations.push_back(
      {[=] { std::memset(reinterpret_cast<void*>(address), 0xFF, bytes); }, nullptr});
}

void begin_capture(int on, std::uintptr_t stream) {
  queues[{on, reinterpret_cast<cudaStream_t>(stream)}].capturing = true;
}

int end_capture(int on, std::uintptr_t stream) {
  Queue& q = queues[{on, reinterpret_cast<cudaStream_t>(stream)}];
  q.capturing = false;
  const int id = static_cast<int>(graphs.size());
  graphs[id].operations = std::exchange(q.captured, {});
  return id;
}

void replay(int graph, int on, std::uintptr_t stream) {
  Queue& q = queues[{on, reinterpret_cast<cudaStream_t>(stream)}];
  for (const Operation& o : graphs.at(graph).operations) q.operations.push_back(o);
}

}  // namespace cuda_host

using namespace cuda_host;

#define FAILS(call)                  \
  const std::lock_guard lock(mutex); \
  if (const cudaError_t injected = inject(call)) return injected

cudaError_t cudaGetDevice(int* out) { return *out = device, cudaSuccess; }
cudaError_t cudaSetDevice(int id) {
  if (id < 0 || id >= kDevices) return cudaErrorInvalidValue;
  return device = id, cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) { return *count = kDevices, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) { return *value = 3, cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t e) {
  return e == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation" : "cudaErrorOther";
}
const char* cudaGetErrorString(cudaError_t e) { return e == cudaErrorMemoryAllocation ? "out of memory" : "other"; }
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps*) { return *pool = nullptr, cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

// In a capture the memory belongs to the graph, and is as undefined in each replay as in the first.
cudaError_t cudaMallocFromPoolAsync(void** out, std::size_t bytes, cudaMemPool_t, cudaStream_t stream) {
  FAILS("cudaMallocFromPoolAsync");
  *out = allocate(bytes);
  if (queue(stream).capturing) put(stream, {[memory = *out, bytes] { std::memset(memory, 0xFF, bytes); }, nullptr});
  return cudaSuccess;
}
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  FAILS("cudaFreeAsync");
  if (!queue(stream).capturing) put(stream, {[memory] { release(memory); }, nullptr});
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** out, std::size_t bytes) {
  FAILS("cudaMalloc");
  for (const auto& [key, q] : queues) {
    if (q.capturing) return cudaErrorStreamCaptureUnsupported;
  }
  return *out = allocate(bytes), cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  FAILS("cudaFree");
  synchronize();
  release(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  FAILS("cudaMemcpyAsync");
  put(stream, {[=] { std::memcpy(to, from, bytes); }, nullptr});
  return cudaSuccess;
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, std::size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, stream);
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned) {
  FAILS("cudaEventCreateWithFlags");
  auto event = std::make_shared<HostEvent>();
  *out = event.get();
  events[*out] = std::move(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
  FAILS("cudaEventRecord");
  const auto event = events.at(e);
  const std::uint64_t version = ++event->recorded;
  put(stream, {[event, version] { event->reached = std::max(event->reached, version); }, nullptr});
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t e) { return events.erase(e), cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned) {
  FAILS("cudaStreamWaitEvent");
  const auto event = events.at(e);
  put(stream, {nullptr, event, event->recorded});
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  FAILS("cudaStreamSynchronize");
  Queue& q = queue(stream);
  if (q.capturing) return cudaErrorStreamCaptureUnsupported;
  drain([&q] { return q.operations.empty(); });
  return error.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  static thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeGlobal;
  return std::swap(*mode, current), cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  FAILS("cudaStreamIsCapturing");
  *status = queue(stream).capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
