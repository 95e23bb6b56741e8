// What tests steer on the host's CUDA: see hooks.cpp for the Python side.
#pragma once
#include <cstdint>
#include <string>

#include "cuda_runtime.h"

namespace cuda_host {

// Runs one block: `thread` once per thread, as fibers. Throws std::runtime_error for a barrier that some thread does
// not reach.
void run_block(const std::function<void()>& thread, dim3 grid, dim3 block, unsigned index);

std::uint64_t random();
void seed(std::uint64_t value);

void synchronize();  // every stream of every device
// What the owner of memory may do with it when its stream has got to where it is now.
void overwrite(std::uintptr_t address, std::size_t bytes, int device, std::uintptr_t stream);
void begin_capture(int device, std::uintptr_t stream);
int end_capture(int device, std::uintptr_t stream);  // the graph
void replay(int graph, int device, std::uintptr_t stream);

// The nth next call (1: the next one) of that name fails.
void fail(const std::string& call, int nth);
int launches();            // since the start
std::string last_error();  // why a kernel failed, "" if none did; cleared by asking
int allocations();         // alive

}  // namespace cuda_host
