// A block of threads as fibers.
#include <sys/mman.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "host.h"

#if !defined(__x86_64__)
#error "the fibers of the host's CUDA are written for x86-64"
#endif
// The address sanitizer wants to know which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#else
static void __sanitizer_start_switch_fiber(void**, const void*, std::size_t) {}
static void __sanitizer_finish_switch_fiber(void*, const void**, std::size_t*) {}
#endif

// Saves the registers that a call keeps and goes on where `to` was saved.
extern "C" void cuda_host_switch(void** from, void* to);
asm(R"(
.text
.globl cuda_host_switch
.hidden cuda_host_switch
cuda_host_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_host {
namespace {

constexpr std::size_t kStack = 256 * 1024;
constexpr unsigned kWarp = 32;

enum class State { ready, at_barrier, at_warp, done };

struct Fiber {
  char* stack;
  void* sp;
  void* fake_stack;  // of the address sanitizer
  State state;
  std::uint64_t mine, got;
  int delta;
};

std::vector<Fiber> fibers;  // as many as the widest block so far, their stacks reused
unsigned current, count;
void* scheduler_sp;
void* scheduler_fake;
const void* scheduler_bottom;
std::size_t scheduler_size;
const std::function<void()>* body;

void to_scheduler() {
  Fiber& f = fibers[current];
  __sanitizer_start_switch_fiber(f.state == State::done ? nullptr : &f.fake_stack, scheduler_bottom, scheduler_size);
  cuda_host_switch(&f.sp, scheduler_sp);
  __sanitizer_finish_switch_fiber(fibers[current].fake_stack, &scheduler_bottom, &scheduler_size);
}

void fiber_main() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_bottom, &scheduler_size);
  (*body)();
  fibers[current].state = State::done;
  to_scheduler();
}

void start(Fiber& f) {
  if (!f.stack) {
    void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::runtime_error("no memory for a fiber");
    f.stack = static_cast<char*>(memory);
  }
  void** top = reinterpret_cast<void**>(f.stack + kStack);
  *--top = nullptr;  // where fiber_main would return to; also makes the stack as misaligned as a call does
  *--top = reinterpret_cast<void*>(&fiber_main);
  for (int k = 0; k < 6; ++k) *--top = nullptr;
  f.sp = top;
  f.state = State::ready;
}

void run(unsigned index) {
  current = index;
  threadIdx = dim3(index);
  Fiber& f = fibers[index];
  __sanitizer_start_switch_fiber(&scheduler_fake, f.stack, kStack);
  cuda_host_switch(&scheduler_sp, f.sp);
  __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
}

std::string at(unsigned thread) {
  return "thread " + std::to_string(thread) + " of block " + std::to_string(blockIdx.x);
}

// Lets the 32 lanes of a warp go on once all have arrived.
void release_warp(unsigned first, std::vector<unsigned>& ready) {
  const unsigned last = std::min(first + kWarp, count);
  for (unsigned i = first; i < last; ++i) {
    if (fibers[i].state != State::at_warp) return;
    if (fibers[i].delta != fibers[first].delta)
      throw std::runtime_error(at(i) + ": lanes of a warp shuffle differently");
  }
  for (unsigned i = first; i < last; ++i) {
    const unsigned from = i + static_cast<unsigned>(fibers[i].delta);
    fibers[i].got = fibers[from < last ? from : i].mine;
  }
  for (unsigned i = first; i < last; ++i) {
    fibers[i].state = State::ready;
    ready.push_back(i);
  }
}

// All threads, warps in random order.
void make_ready(std::vector<unsigned>& ready) {
  std::vector<unsigned> warps;
  for (unsigned first = 0; first < count; first += kWarp) warps.push_back(first);
  for (std::size_t k = warps.size(); k > 1; --k) std::swap(warps[k - 1], warps[random() % k]);
  for (const unsigned first : warps) {
    for (unsigned i = first; i < std::min(first + kWarp, count); ++i) {
      fibers[i].state = State::ready;
      ready.push_back(i);
    }
  }
}

}  // namespace

void run_block(const std::function<void()>& thread, dim3 grid, dim3 block, unsigned index) {
  gridDim = grid;
  blockDim = block;
  blockIdx = dim3(index);
  count = block.x;
  body = &thread;
  if (fibers.size() < count) fibers.resize(count, Fiber{});
  std::vector<unsigned> ready;
  for (unsigned i = 0; i < count; ++i) start(fibers[i]);
  make_ready(ready);
  // Half of the blocks draw every thread at random. The others go on with the warp that last ran for as long as it can:
  // one far ahead of the rest is what a missing barrier shows itself by.
  const bool one_warp_ahead = random() % 2;
  unsigned waiting = 0, done = 0;
  while (done < count) {
    if (ready.empty()) {
      if (waiting != count) {
        for (unsigned i = 0; i < count; ++i) {
          if (fibers[i].state != State::at_barrier) throw std::runtime_error(at(i) + " does not reach a barrier");
        }
      }
      make_ready(ready);
      waiting = 0;
    }
    if (!one_warp_ahead) std::swap(ready[random() % ready.size()], ready.back());
    const unsigned next = ready.back();
    ready.pop_back();
    run(next);
    const State state = fibers[next].state;
    if (state == State::done) ++done;
    if (state == State::at_barrier) ++waiting;
    if (state == State::at_warp) release_warp(next / kWarp * kWarp, ready);
  }
}

std::uint64_t shuffle_down(std::uint64_t mine, int delta) {
  Fiber& f = fibers[current];
  f.mine = mine;
  f.delta = delta;
  f.state = State::at_warp;
  to_scheduler();
  return fibers[current].got;
}

}  // namespace cuda_host

void __syncthreads() {
  cuda_host::fibers[cuda_host::current].state = cuda_host::State::at_barrier;
  cuda_host::to_scheduler();
}

void __syncwarp() { cuda_host::shuffle_down(0, 0); }
