// Kernels as data, so that the code that plans and launches is compiled once and by any compiler.
#pragma once
#include <cuda_runtime.h>

#include <vector>

#include "args.h"

namespace fusedstep::cuda {

struct Kernel {
  cudaError_t (*launch)(const cudaLaunchConfig_t&, const void* args);
  cudaError_t (*blocks_per_multiprocessor)(int* blocks, int threads);
};

template <class Head, int kBytes, void (*kKernel)(Args<Head, kBytes>)>
constexpr Kernel kernel_of() {
  return {[](const cudaLaunchConfig_t& config, const void* args) {
            return cudaLaunchKernelEx(&config, kKernel, *static_cast<const Args<Head, kBytes>*>(args));
          },
          [](int* blocks, int threads) {
            return cudaOccupancyMaxActiveBlocksPerMultiprocessor(blocks, kKernel, threads, 0);
          }};
}

// For arguments of kSmallArgs and of kLargeArgs bytes.
struct KernelPair {
  Kernel small, large;
};

const KernelPair& step_kernel_of(int rule, Compute compute, bool mixed);  // mixed: any format in any stream
const KernelPair& measure_kernel_of(int rule, Compute compute);           // of rules with sums alone
const Kernel& ride_kernel_of(int rule, Compute compute);                  // of kLargeArgs; any format in any stream
const KernelPair& norm_kernel_of(Norm norm, Compute compute, bool masked);
const Kernel& stats_kernel();
const KernelPair& finish_kernel();
const Kernel& fill_kernel();
const Kernel& ranks_kernel();  // of kSmallArgs

void launch(const Kernel& kernel, const char* name, unsigned blocks, unsigned threads, cudaStream_t stream,
            const void* args);

// Puts bytes into memory of the current device by kernel arguments alone.
void fill(void* to, const std::vector<std::byte>& bytes, cudaStream_t stream);

// As many blocks as run at once on the current device. Asking also fails early for a kernel this device cannot run.
unsigned resident_blocks(const Kernel& kernel, int device, int threads = kThreads);

}  // namespace fusedstep::cuda
