#include "threads.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace fusedstep {
namespace {

// ---------------------------------------------------------------------------------------------- OpenMP of the process

struct OpenMP {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_num)() = nullptr;
  int (*num_threads)() = nullptr;
  int (*max_threads)() = nullptr;
  int (*in_parallel)() = nullptr;
};

// A child of fork has the parent's team on record but not its threads: entering it waits for ever.
std::atomic<bool> forked{false};

template <class F>
bool find([[maybe_unused]] const char* name, [[maybe_unused]] F*& out) {
#if defined(__unix__) || defined(__APPLE__)
  out = reinterpret_cast<F*>(dlsym(RTLD_DEFAULT, name));
#endif
  return out != nullptr;
}

// Looked up until found, since torch may be imported after us. Its libgomp is loaded with global symbols; one that
// another extension keeps to itself is not visible here, and not used.
const OpenMP* openmp() {
  static std::atomic<const OpenMP*> found{nullptr};
  if (forked.load(std::memory_order_relaxed)) return nullptr;
  if (const OpenMP* known = found.load(std::memory_order_acquire)) return known;
  static OpenMP table;
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (find("GOMP_parallel", table.parallel) && find("omp_get_thread_num", table.thread_num) &&
      find("omp_get_num_threads", table.num_threads) && find("omp_get_max_threads", table.max_threads) &&
      find("omp_in_parallel", table.in_parallel)) {
    found.store(&table, std::memory_order_release);
  }
  return found.load(std::memory_order_acquire);
}

// --------------------------------------------------------------------------------------------------------- own pool

struct Job {
  void (*body)(void*, int, int);
  void* context;
};

// Workers sleep between calls. One job at a time: a caller that finds the pool busy does its work alone.
class Pool {
 public:
  bool run(int threads, Job job) {
    std::unique_lock busy(busy_, std::try_to_lock);
    if (!busy) return false;
    try {
      while (static_cast<int>(workers_.size()) < threads - 1) {
        const int index = static_cast<int>(workers_.size()) + 1;
        workers_.emplace_back([this, index, seen = generation_] { work(index, seen); });
      }
    } catch (const std::exception&) {  // no more threads to be had, or no memory: those there are will do
      threads = static_cast<int>(workers_.size()) + 1;
    }
    {
      const std::lock_guard lock(mutex_);
      job_ = job;
      threads_ = threads;
      left_ = threads - 1;
      ++generation_;
    }
    start_.notify_all();
    job.body(job.context, 0, threads);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return left_ == 0; });
    return true;
  }

 private:
  void work(int index, unsigned long seen) {
    const FloatEnvironment environment;
    std::unique_lock lock(mutex_);
    for (;;) {
      start_.wait(lock, [&] { return generation_ != seen; });
      seen = generation_;
      if (index >= threads_) continue;
      const Job job = job_;
      const int threads = threads_;
      lock.unlock();
      job.body(job.context, index, threads);
      lock.lock();
      if (--left_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable start_, done_;
  std::vector<std::thread> workers_;
  Job job_{};
  int threads_ = 0, left_ = 0;
  unsigned long generation_ = 0;
};

// Never destroyed: at exit the workers are asleep and end with the process. After fork the child's copy has no workers
// and perhaps a held mutex, so the child gets a new one.
std::atomic<Pool*> pool{new Pool};

#if defined(__unix__) || defined(__APPLE__)
const int at_fork = pthread_atfork(nullptr, nullptr, [] {
  forked.store(true);
  pool.store(new Pool);
});
#endif

thread_local bool inside = false;

struct Inside {
  Inside() { inside = true; }
  ~Inside() { inside = false; }
};

int machine_threads() {
  static const int count = [] {
    if (const char* text = std::getenv("OMP_NUM_THREADS")) {
      if (const int n = std::atoi(text); n > 0) return n;
    }
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
#endif
    const int n = static_cast<int>(std::thread::hardware_concurrency());
    return n > 0 ? n : 1;
  }();
  return count;
}

std::atomic<int> requested{0};
thread_local int limit = 0;

}  // namespace

ThreadLimit::ThreadLimit(int threads) : before_(limit) { limit = threads; }
ThreadLimit::~ThreadLimit() { limit = before_; }

void set_max_threads(int n) { requested.store(n); }

int max_threads() {
  if (const int n = requested.load(std::memory_order_relaxed); n > 0) return n;
  if (limit > 0) return limit;
  const OpenMP* team = openmp();
  return team ? team->max_threads() : machine_threads();
}

bool has_openmp() { return openmp() != nullptr; }

void parallel(int wanted, void (*body)(void*, int, int), void* context) {
  const FloatEnvironment environment;
  const OpenMP* team = wanted > 1 ? openmp() : nullptr;
  if (wanted <= 1 || inside || (team && team->in_parallel())) return body(context, 0, 1);
  const Inside now;
  if (team) {
    struct Region {
      const OpenMP* team;
      Job job;
    } region{team, {body, context}};
    team->parallel(
        [](void* data) {
          const FloatEnvironment worker_environment;
          const Region& r = *static_cast<Region*>(data);
          r.job.body(r.job.context, r.team->thread_num(), r.team->num_threads());
        },
        &region, static_cast<unsigned>(wanted), 0);
  } else if (!pool.load()->run(wanted, {body, context})) {
    body(context, 0, 1);
  }
}

#if defined(__x86_64__) || defined(_M_X64)
FloatEnvironment::FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
FloatEnvironment::~FloatEnvironment() { _mm_setcsr(static_cast<unsigned>(saved_)); }
#elif defined(__aarch64__) && defined(__GNUC__)
FloatEnvironment::FloatEnvironment() {
  asm volatile("mrs %0, fpcr" : "=r"(saved_));
  asm volatile("msr fpcr, %0" ::"r"(0ULL));
}
FloatEnvironment::~FloatEnvironment() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
FloatEnvironment::FloatEnvironment() : saved_(0) {}
FloatEnvironment::~FloatEnvironment() = default;
#endif

}  // namespace fusedstep
