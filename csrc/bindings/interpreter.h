// What the core asks of the Python interpreter and its threads.
//
// While the interpreter exits, a daemon thread that asks for its lock is ended by pthread_exit (before Python 3.14),
// which unwinds the stack: through a destructor or a catch (...) of pybind11's that aborts the process. So wherever
// this module may wait for the lock, the unwinding stops and the thread sleeps until the process is gone, as
// Python 3.14 does it.
#pragma once
#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>
#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

#include "../cpu/threads.h"

namespace fusedstep {

namespace py = pybind11;

[[noreturn]] inline void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(24));
}

// A call that may wait for the interpreter lock, from where this thread has it or is to get it.
template <class Call>
decltype(auto) survive_exit(const Call& call) {
#if defined(__GLIBCXX__)
  try {
    return call();
  } catch (abi::__forced_unwind&) {
    sleep_for_ever();
  }
#else
  return call();
#endif
}

// torch.get_num_threads() of this thread, 0 where torch is not imported. It sets torch's own number up in a thread that
// has not used torch yet, and after fork.
int torch_threads();

// Runs `work` without the interpreter lock, on as many threads as torch would use here.
template <class Work>
void without_lock(const Work& work) {
  const ThreadLimit limit(torch_threads());
  PyThreadState* const state = PyEval_SaveThread();
  const auto lock = [state] { survive_exit([state] { PyEval_RestoreThread(state); }); };
  try {
    work();
  } catch (...) {
    lock();
    throw;
  }
  lock();
}

}  // namespace fusedstep
