// Threads: the OpenMP team that is already in the process where there is one (torch brings libgomp), a pool that sleeps
// on a condition variable where there is none. Never a second spinning team: two of them halve each other's speed.
#pragma once

namespace fusedstep {

// How many threads a large call uses: set_max_threads, else the ThreadLimit of this thread, else omp_get_max_threads of
// that team, else OMP_NUM_THREADS, else the cores this process may run on.
int max_threads();
void set_max_threads(int n);  // 0: automatic again

// What max_threads() is on this thread for a scope, where the process has someone to ask; 0: nobody to ask.
class ThreadLimit {
 public:
  explicit ThreadLimit(int threads);
  ~ThreadLimit();
  ThreadLimit(const ThreadLimit&) = delete;
  ThreadLimit& operator=(const ThreadLimit&) = delete;

 private:
  int before_;
};

// What a parallel call would use now: the process's OpenMP team, or the pool.
bool has_openmp();

// Runs body(context, thread, threads) once per thread, with threads <= wanted, and waits. In the default floating-point
// environment on every thread. Serial inside another parallel region. Safe after fork and from several threads at once.
void parallel(int wanted, void (*body)(void* context, int thread, int threads), void* context);

template <class Body>
void parallel(int wanted, const Body& body) {
  parallel(
      wanted, [](void* c, int thread, int threads) { (*static_cast<const Body*>(c))(thread, threads); },
      const_cast<Body*>(&body));
}

// The default floating-point environment for a scope: round to nearest, denormals kept.
class FloatEnvironment {
 public:
  FloatEnvironment();
  ~FloatEnvironment();
  FloatEnvironment(const FloatEnvironment&) = delete;
  FloatEnvironment& operator=(const FloatEnvironment&) = delete;

 private:
  unsigned long long saved_;
};

}  // namespace fusedstep
