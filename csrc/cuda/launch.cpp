#include "launch.h"

#include <algorithm>
#include <map>
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
