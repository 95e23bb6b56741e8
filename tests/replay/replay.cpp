// Replays calls on the core alone, without Python, so that it runs on any machine and emulator: tests/test_replay.py
// writes the calls with what the specification says they give. Every available target, bit for bit (a NaN equals a
// NaN), with guard elements around each array and an inaccessible page behind it. Exit status 1 after a difference.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/run.h"
#include "../../csrc/cpu/threads.h"
#include "../../csrc/kernels/registry.h"

namespace fs = fusedstep;

namespace {

// Elements between the end of an array and the page that faults: none, so that a read past it faults too, and a few,
// so that every misalignment occurs and a write past it is seen.
constexpr int kGaps[] = {0, 1, 3};
constexpr int kBefore = 32;

struct Reader {
  const char* at;
  const char* end;

  const char* bytes(std::int64_t n) {
    if (n > end - at) throw std::runtime_error("the file is cut off");
    return std::exchange(at, at + n);
  }
  template <class T>
  T get() {
    T x;
    std::memcpy(&x, bytes(sizeof x), sizeof x);
    return x;
  }
};

// Memory whose end lies against an inaccessible page; kept for the next call.
class Arena {
 public:
  template <class T>
  T* place(const char* values, std::int64_t n, int gap) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t need = (static_cast<std::size_t>(n + kBefore + gap) * sizeof(T) + page - 1) / page * page;
    if (need > size_) {
      void* memory = mmap(nullptr, need + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (memory == MAP_FAILED || mprotect(static_cast<char*>(memory) + need, page, PROT_NONE) != 0) std::abort();
      end_ = static_cast<char*>(memory) + need;
      size_ = need;
    }
    T* const x = reinterpret_cast<T*>(end_) - gap - n;
    std::fill(x - kBefore, x, T(-123.456));
    std::fill(x + n, x + n + gap, T(-123.456));
    if (n > 0) std::memcpy(x, values, n * sizeof(T));
    return x;
  }

 private:
  char* end_ = nullptr;
  std::size_t size_ = 0;
};

std::deque<Arena> arenas;
long calls, differences;
std::vector<bool> seen(fs::all_rules().size());

template <class T>
void compare(const T* got, const char* want, std::int64_t n, int gap, const std::string& what) {
  for (std::int64_t i = -kBefore; i < n + gap; ++i) {
    T w = T(-123.456);
    if (i >= 0 && i < n) std::memcpy(&w, want + i * sizeof(T), sizeof w);
    if (std::memcmp(&w, &got[i], sizeof w) == 0 || (std::isnan(w) && std::isnan(got[i]))) continue;
    if (++differences <= 5) {
      std::printf("%s [%lld] of %lld, gap %d: %.17g, expected %.17g\n", what.c_str(), static_cast<long long>(i),
                  static_cast<long long>(n), gap, static_cast<double>(got[i]), static_cast<double>(w));
    }
  }
}

// A rule, and what is constant during its step.
struct Prepared {
  std::string name;
  int rule = -1, streams;
  std::int64_t step;
  fs::StepOptions options{};
  double norm;
  fs::UniformBytes uniform;
};

// name, step, options (hyper first), norm, scalars (value, whether float64), those expected.
Prepared prepare(Reader& r, fs::DType dtype) {
  Prepared out;
  const auto length = r.get<std::int64_t>();
  out.name = std::string(r.bytes(length), length);
  for (std::size_t k = 0; k < fs::all_rules().size(); ++k) {
    std::string key = fs::all_rules()[k].name;
    for (const std::string& s : fs::all_rules()[k].state) key += "-" + s;
    if (key == out.name) out.rule = static_cast<int>(k);
  }
  if (out.rule < 0) throw std::runtime_error("no rule " + out.name);
  seen[out.rule] = true;
  const fs::RuleInfo& info = fs::all_rules()[out.rule];
  out.streams = 2 + static_cast<int>(info.state.size());
  out.step = r.get<std::int64_t>();
  fs::StepOptions& options = out.options;
  for (std::size_t k = 0; k < info.hyper.size(); ++k) options.hyper[k] = r.get<double>();
  for (double* x : {&options.weight_decay, &options.clip_value, &options.max_norm, &options.grad_scale}) {
    *x = r.get<double>();
  }
  options.decoupled = r.get<double>() != 0.0;
  options.maximize = r.get<double>() != 0.0;
  out.norm = r.get<double>();
  fs::Scalars scalars{};
  for (std::size_t k = 0; k < info.scalars.size(); ++k) {
    scalars.at[k] = r.get<double>();
    scalars.wide[k] = r.get<double>() != 0.0;
  }
  fs::prepare(out.rule, dtype, options, out.norm, out.step, out.uniform.bytes, &scalars);
  for (std::size_t k = 0; k < info.scalars.size(); ++k) {
    if (scalars.at[k] == r.get<double>()) continue;
    std::printf("%s scalar %zu: %.17g\n", out.name.c_str(), k, scalars.at[k]);
    ++differences;
  }
  return out;
}

// One pass over the elements, or two, as a call makes them.
void run(const Prepared& prepared, std::vector<fs::Tensor>& work, const std::vector<std::int64_t>& numels) {
  if (fs::all_rules()[prepared.rule].sums == 0) {
    fs::run_step(work, fs::Plan(numels), prepared.step % 2 == 0);
    return;
  }
  fs::Call call;
  call.tensors = work;
  for (fs::Tensor& t : call.tensors) t.step = prepared.step;
  call.options.push_back({prepared.options});
  call.given_norm.value = prepared.norm;
  const auto run = fs::cpu::start(call);
  run->fold();
  run->prepare();
  run->apply();
}

// A rule; for every tensor p, g, states and the expected p, states.
template <class T>
void replay_step(Reader& r, fs::DType dtype, const std::vector<std::int64_t>& numels, int gap) {
  const Prepared prepared = prepare(r, dtype);
  const auto& [name, rule, streams, step, options, norm, uniform] = prepared;
  std::vector<fs::Tensor> work;
  std::vector<const char*> given, expected;
  arenas.resize(std::max(arenas.size(), numels.size() * streams));
  for (const std::int64_t n : numels) {
    fs::Tensor& w = work.emplace_back(fs::Tensor{{}, streams, dtype, rule, n, uniform.bytes, nullptr});
    for (int k = 0; k < streams; ++k) {
      given.push_back(r.bytes(n * sizeof(T)));
      w.stream[k] = {arenas[given.size() - 1].place<T>(given.back(), n, gap), fs::plain_format(dtype)};
    }
    for (int k = 0; k < streams; ++k)
      expected.push_back(k == 1 ? given[given.size() - streams + 1] : r.bytes(n * sizeof(T)));
    if (name == "clip") {  // in place: the gradient stream is the written array
      w.stream[1] = w.stream[0];
      expected[expected.size() - 1] = expected[expected.size() - 2];
    }
  }
  run(prepared, work, numels);
  for (std::size_t i = 0; i < work.size() * streams; ++i) {
    const fs::Tensor& w = work[i / streams];
    compare(static_cast<const T*>(w.stream[i % streams].data), expected[i], w.numel, gap,
            fs::active_target().name + (" " + name) + " stream " + std::to_string(i % streams));
  }
}

// norm_type; every tensor; the expected norms, then their total.
template <class T>
void replay_norm(Reader& r, fs::DType dtype, const std::vector<std::int64_t>& numels, int gap) {
  const auto type = r.get<double>();
  std::vector<fs::NormWork> work;
  arenas.resize(std::max(arenas.size(), numels.size()));
  for (const std::int64_t n : numels) {
    const T* x = arenas[work.size()].place<T>(r.bytes(n * sizeof(T)), n, gap);
    work.push_back({x, fs::plain_format(dtype), false, n, nullptr});
  }
  fs::Norms norms = fs::run_norm(work, type);
  norms.each.push_back(norms.total);
  std::vector<double> guarded(kBefore, -123.456);
  guarded.insert(guarded.end(), norms.each.begin(), norms.each.end());
  const std::string what = fs::active_target().name + (" norm " + std::to_string(type));
  compare(guarded.data() + kBefore, r.bytes(norms.each.size() * sizeof(double)), norms.each.size(), 0, what);
}

// Streams of one tensor that need be neither flat nor stored as they are computed with.
struct Stored {
  std::vector<std::int64_t> items;
  std::vector<const char*> expected;
  std::vector<fs::Stream> stream;
  fs::Strided layout;
  bool strided;

  // dimensions, sizes; for every stream its format, strides, how many items its memory holds, those, those expected
  Stored(Reader& r, int streams, int gap, std::size_t arena) : strided(r.get<std::int64_t>() != 0) {
    const auto dims = r.get<std::int64_t>();
    for (std::int64_t d = 0; d < dims; ++d) layout.size.push_back(r.get<std::int64_t>());
    for (int k = 0; k < streams; ++k) {
      const auto format = static_cast<fs::Format>(r.get<std::int64_t>());
      for (std::int64_t d = 0; d < dims; ++d) layout.stride[k].push_back(r.get<std::int64_t>());
      items.push_back(r.get<std::int64_t>());
      const std::int64_t bytes = items[k] * fs::item_size(format);
      const char* const given = r.bytes(bytes);
      expected.push_back(r.bytes(bytes));
      arenas.resize(std::max(arenas.size(), arena + k + 1));
      stream.push_back(
          {arenas[arena + k].place<std::int16_t>(given, bytes / 2, gap * fs::item_size(format) / 2), format});
    }
  }
  const fs::Strided* strides() const { return strided ? &layout : nullptr; }
};

// A rule, then its tensors.
void replay_stored_step(Reader& r, fs::DType dtype, const std::vector<std::int64_t>& numels, int gap) {
  const Prepared prepared = prepare(r, dtype);
  const auto& [name, rule, streams, step, options, norm, uniform] = prepared;
  std::deque<Stored> tensors;
  std::vector<fs::Tensor> work;
  for (const std::int64_t n : numels) {
    const Stored& t = tensors.emplace_back(r, streams, gap, tensors.size() * streams);
    fs::Tensor& w = work.emplace_back(fs::Tensor{{}, streams, dtype, rule, n, uniform.bytes, t.strides()});
    std::copy(t.stream.begin(), t.stream.end(), w.stream);
  }
  run(prepared, work, numels);
  for (const Stored& t : tensors) {
    for (int k = 0; k < streams; ++k) {
      const int halves = fs::item_size(t.stream[k].format) / 2;
      compare(static_cast<const std::int16_t*>(t.stream[k].data), t.expected[k], t.items[k] * halves, gap * halves,
              fs::active_target().name + (" " + name) + " stored stream " + std::to_string(k));
    }
  }
}

// norm_type; every tensor; the expected norms, then their total.
void replay_stored_norm(Reader& r, const std::vector<std::int64_t>& numels, int gap) {
  const auto type = r.get<double>();
  std::deque<Stored> tensors;
  std::vector<fs::NormWork> work;
  for (const std::int64_t n : numels) {
    const Stored& t = tensors.emplace_back(r, 1, gap, tensors.size());
    work.push_back({t.stream[0].data, t.stream[0].format, false, n, t.strides()});
  }
  fs::Norms norms = fs::run_norm(work, type);
  norms.each.push_back(norms.total);
  for (const double norm : norms.each) {
    if (norm == r.get<double>()) continue;
    std::printf("%s stored norm %g: %.17g\n", fs::active_target().name, type, norm);
    ++differences;
  }
}

void replay(Reader r, int gap) {
  while (r.at < r.end) {
    const auto kind = r.get<std::int64_t>();  // 0: step, 1: norm, 2 and 3: of stored streams
    const bool norm = kind == 1;
    const auto dtype = static_cast<fs::DType>(r.get<std::int64_t>());
    std::vector<std::int64_t> numels(r.get<std::int64_t>());
    for (std::int64_t& n : numels) n = r.get<std::int64_t>();
    const fs::FloatEnvironment environment;
    if (kind == 2) {
      replay_stored_step(r, dtype, numels, gap);
    } else if (kind == 3) {
      replay_stored_norm(r, numels, gap);
    } else if (dtype == fs::DType::float32) {
      (norm ? replay_norm<float> : replay_step<float>)(r, dtype, numels, gap);
    } else {
      (norm ? replay_norm<double> : replay_step<double>)(r, dtype, numels, gap);
    }
    ++calls;
  }
}

// Subnormals flushed, as a caller may have set it: each call has to undo that for itself.
void flush_subnormals() {
#if defined(__aarch64__)
  asm volatile("msr fpcr, %0" ::"r"(1ULL << 24));
#elif defined(__x86_64__)
  const unsigned flush = 0x9FC0;
  asm volatile("ldmxcsr %0" ::"m"(flush));
#endif
}

}  // namespace

int main(int argc, char** argv) {
  for (const std::string& target : fs::available_targets()) {
    fs::use_target(target);
    calls = differences = 0;
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      const std::string data{std::istreambuf_iterator<char>(file), {}};
      for (const int gap : kGaps) {
        flush_subnormals();
        replay({data.data(), data.data() + data.size()}, gap);
      }
    }
    std::printf("%s: %ld calls, %ld differences\n", fs::last_target(), calls, differences);
    if (differences > 0) return 1;
  }
  std::size_t rules = 0;
  for (const bool s : seen) rules += s;
  std::printf("rules: %zu of %zu\n", rules, seen.size());
}
