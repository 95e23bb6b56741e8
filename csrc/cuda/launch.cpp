#include "launch.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "runtime.h"

namespace fusedstep::cuda {

void launch(const Kernel& kernel, const char* name, unsigned blocks, unsigned threads, cudaStream_t stream,
            const void* args) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(blocks);
  config.blockDim = dim3(threads);
  config.stream = stream;
  check(kernel.launch(config, args), name);
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

unsigned resident_blocks(const Kernel& kernel, int device, int threads) {
  using Known = std::map<std::pair<int, decltype(kernel.launch)>, unsigned>;
  static std::mutex& mutex = *new std::mutex;  // never destroyed: a daemon thread may go on while the process exits
  static Known& known = *new Known;
  const std::lock_guard lock(mutex);
  unsigned& blocks = known[{device, kernel.launch}];
  if (blocks == 0) {
    int per_multiprocessor = 0;
    check(kernel.blocks_per_multiprocessor(&per_multiprocessor, threads),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    blocks = static_cast<unsigned>(std::max(1, per_multiprocessor) * multiprocessors());
  }
  return blocks;
}

}  // namespace fusedstep::cuda
