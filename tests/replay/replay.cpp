// Replays calls on the core alone, without Python, so that it runs on any machine and emulator.
// tests/core/test_replay.py writes the calls with what the specification says they give. Every available target, or
// with
// --cuda the CUDA kernels on the CPU, bit for bit (a NaN equals a NaN), with guard elements around each array and an
// inaccessible page behind it. Exit status 1 after a difference.
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
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/run.h"
#include "../../csrc/cpu/threads.h"
#include "../../csrc/cuda/run.h"
#include "../../csrc/kernels/registry.h"
#if defined(FS_CUDA_ON_HOST)
#include "../cuda_host/host.h"
#endif

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

// Of the target that runs, or "cuda".
std::string target;

std::unique_ptr<fs::Run> start(fs::Call& call) {
#if defined(FS_CUDA_ON_HOST)
  if (target == "cuda") {
    for (fs::Tensor& t : call.tensors) t.device = 0;
    call.streams = {{0, nullptr}};
    return fs::cuda::start(call);
  }
#endif
  return fs::cpu::start(call);
}

void wait() {
#if defined(FS_CUDA_ON_HOST)
  cuda_host::synchronize();
  if (const std::string error = cuda_host::last_error(); !error.empty()) throw std::runtime_error(error);
#endif
}

void compare(double got, double want, const std::string& what) {
  if (got == want || (std::isnan(got) && std::isnan(want))) return;
  std::printf("%s: %.17g, expected %.17g\n", what.c_str(), got, want);
  ++differences;
}

// States of one number: where they lie, and the values expected after the step.
struct StoredScalars {
  std::vector<double> memory;  // 8 bytes each, of which a float32 takes 4
  std::vector<fs::Scalar> at;
  std::vector<double> expected;

  // Value and whether it is float64 for each, then those expected.
  StoredScalars(Reader& r, std::size_t count) : memory(count) {
    for (double& number : memory) {
      const double value = r.get<double>();
      at.push_back({&number, r.get<double>() != 0.0});
      at.back().write(value);
    }
    for (std::size_t k = 0; k < count; ++k) expected.push_back(r.get<double>());
  }
  // Another tensor's of the same values.
  StoredScalars(const StoredScalars& other) : memory(other.memory), at(other.at), expected(other.expected) {
    for (std::size_t k = 0; k < at.size(); ++k) at[k].at = &memory[k];
  }
  void check(const std::string& what) const {
    for (std::size_t k = 0; k < at.size(); ++k) compare(at[k].read(), expected[k], what + std::to_string(k));
  }
};

// A rule, and what is asked of its step: name, step, options (hyper first), norm, seed, scalars of the tensor and the
// group.
struct Asked {
  std::string name;
  int rule = -1, streams;
  std::int64_t step;
  fs::StepOptions options{};
  double norm;
  std::deque<StoredScalars> scalars;  // of each tensor
  std::deque<StoredScalars> group;    // one
  bool has_mask = false, has_average = false;

  explicit Asked(Reader& r) {
    const auto length = r.get<std::int64_t>();
    name = std::string(r.bytes(length), length);
    for (std::size_t k = 0; k < fs::all_rules().size(); ++k) {
      std::string key = fs::all_rules()[k].name;
      for (const std::string& s : fs::all_rules()[k].state) key += "-" + s;
      if (key == name) rule = static_cast<int>(k);
    }
    if (rule < 0) throw std::runtime_error("no rule " + name);
    const fs::RuleInfo& info = fs::all_rules()[rule];
    streams = 2 + static_cast<int>(info.state.size());
    step = r.get<std::int64_t>();
    for (std::size_t k = 0; k < info.hyper.size(); ++k) options.hyper[k] = r.get<double>();
    for (double* x : {&options.weight_decay, &options.clip_value, &options.max_norm, &options.grad_scale}) {
      *x = r.get<double>();
    }
    options.decoupled = r.get<double>() != 0.0;
    options.maximize = r.get<double>() != 0.0;
    norm = r.get<double>();
    options.seed = r.get<std::uint64_t>();
    scalars.emplace_back(r, info.scalars.size());
    group.emplace_back(r, info.group_scalars.size());
  }

  // What rides along.
  void read_ride(Reader& r) {
    fs::RideOptions& ride = options.ride;
    for (double* x : {&ride.l1, &ride.decay_lr, &ride.weight}) *x = r.get<double>();
    for (double& x : ride.start) x = r.get<double>();
    ride.decay_mode = static_cast<fs::DecayMode>(r.get<std::int64_t>());
    for (bool* x : {&ride.cautious, &ride.cautious_decay, &ride.nonzero, &ride.stats, &has_mask, &has_average}) {
      *x = r.get<std::int64_t>() != 0;
    }
    streams += has_mask + has_average;
  }

  fs::Tensor tensor(fs::Compute compute, std::int64_t numel, const std::vector<fs::Stream>& stream,
                    const fs::Strided* strided) const {
    fs::Tensor t{{}, streams, compute, rule, numel, nullptr, strided};
    std::copy(stream.begin(), stream.end(), t.stream);
    t.two_passes = fs::all_rules()[rule].sums > 0;
    t.rides = options.ride.any() || has_mask || has_average;
    t.nonzero = options.ride.nonzero;
    t.clips = std::isfinite(options.clip_value);
    t.mask = has_mask ? streams - has_average - 1 : 0;
    t.average = has_average ? streams - 1 : 0;
    t.apart = fs::lies_apart(t);
    t.step = step;
    return t;
  }

  void run(std::vector<fs::Tensor> tensors, std::vector<double>* stats = nullptr) {
    fs::Call call;
    call.stats = stats ? stats->data() : nullptr;
    call.tensors = std::move(tensors);
    call.in_place = name == "clip";
    fs::Options& o = call.options.emplace_back(fs::Options{options});
    std::copy(group[0].at.begin(), group[0].at.end(), o.scalars);
    call.grad_scale.value = options.grad_scale;
    for (fs::Tensor& t : call.tensors) {
      if (scalars.size() < call.tensors.size()) scalars.push_back(scalars[0]);
      const StoredScalars& own = scalars[&t - call.tensors.data()];
      std::copy(own.at.begin(), own.at.end(), t.scalars);
      t.id = &t - call.tensors.data();
      if (options.max_norm >= 0.0) t.sum = call.sums++;
      if (stats) t.stats = t.id;
    }
    if (call.sums > 0) call.phases |= fs::kMeasure | fs::kFold;
    auto run = start(call);
    if (call.sums > 0) compare(run->fold().total, norm, name + " norm");
    run->prepare();
    run->apply();
    run.reset();
    wait();
    for (const auto& [at, value] : call.counts) at.write(value);
    for (std::size_t k = 0; k < call.tensors.size(); ++k) scalars[k].check(target + " " + name + " scalar ");
    group[0].check(target + " " + name + " group scalar ");
  }
};

// Of each array, then of all.
std::vector<double> norms_of(std::vector<fs::Tensor> tensors, double type) {
  fs::Call call;
  call.tensors = std::move(tensors);
  call.phases = fs::kMeasure | fs::kFold;
  call.options.push_back({{{}, 0.0, INFINITY, INFINITY, 1.0, false, false}});
  call.norm_type = type;
  for (fs::Tensor& t : call.tensors) t.sum = call.sums++;
  call.per_tensor = true;
  std::vector<double> norms = start(call)->fold().each;
  call.per_tensor = false;
  norms.push_back(start(call)->fold().total);
  wait();
  return norms;
}

// A rule; for every tensor p, g, states and the expected p, states.
template <class T>
void replay_step(Reader& r, fs::Compute compute, const std::vector<std::int64_t>& numels, int gap) {
  Asked asked(r);
  const int streams = asked.streams;
  std::vector<fs::Tensor> work;
  std::vector<const char*> given, expected;
  arenas.resize(std::max(arenas.size(), numels.size() * streams));
  for (const std::int64_t n : numels) {
    std::vector<fs::Stream> stream;
    for (int k = 0; k < streams; ++k) {
      given.push_back(r.bytes(n * sizeof(T)));
      stream.push_back({arenas[given.size() - 1].place<T>(given.back(), n, gap), fs::plain_format(compute)});
    }
    for (int k = 0; k < streams; ++k)
      expected.push_back(k == 1 ? given[given.size() - streams + 1] : r.bytes(n * sizeof(T)));
    if (asked.name == "clip") {  // in place: the gradient stream is the written array
      stream[1] = stream[0];
      expected[expected.size() - 1] = expected[expected.size() - 2];
    }
    work.push_back(asked.tensor(compute, n, stream, nullptr));
  }
  asked.run(work);
  for (std::size_t i = 0; i < work.size() * streams; ++i) {
    const fs::Tensor& w = work[i / streams];
    compare(static_cast<const T*>(w.stream[i % streams].data), expected[i], w.numel, gap,
            target + " " + asked.name + " stream " + std::to_string(i % streams));
  }
}

fs::Tensor gradient(const fs::Stream& stream, fs::Compute compute, std::int64_t n, const fs::Strided* strided) {
  fs::Tensor t{{stream, stream}, 2, compute, 0, n, nullptr, nullptr};
  t.row_major = strided;
  return t;
}

// norm_type; every tensor; the expected norms, then their total.
template <class T>
void replay_norm(Reader& r, fs::Compute compute, const std::vector<std::int64_t>& numels, int gap) {
  const auto type = r.get<double>();
  std::vector<fs::Tensor> work;
  arenas.resize(std::max(arenas.size(), numels.size()));
  for (const std::int64_t n : numels) {
    T* const x = arenas[work.size()].place<T>(r.bytes(n * sizeof(T)), n, gap);
    work.push_back(gradient({x, fs::plain_format(compute)}, compute, n, nullptr));
  }
  for (const double norm : norms_of(work, type)) {
    compare(norm, r.get<double>(), target + " norm " + std::to_string(type));
  }
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
      void* const at = fs::item_size(format) == 1
                           ? static_cast<void*>(arenas[arena + k].place<signed char>(given, bytes, gap))
                           : arenas[arena + k].place<std::int16_t>(given, bytes / 2, gap * fs::item_size(format) / 2);
      stream.push_back({at, format});
    }
  }
  const fs::Strided* strides() const { return strided ? &layout : nullptr; }
};

bool is_nan(fs::Format format, const char* at) {
  double wide;
  float single;
  std::uint16_t half;
  switch (format) {
    case fs::Format::float64:
      std::memcpy(&wide, at, sizeof wide);
      return std::isnan(wide);
    case fs::Format::float32:
      std::memcpy(&single, at, sizeof single);
      return std::isnan(single);
    default:
      std::memcpy(&half, at, sizeof half);
      return (half & 0x7fff) > (format == fs::Format::float16 ? 0x7c00 : 0x7f80);
  }
}

// What is expected, but with the NaNs that were got, where there should be any.
std::vector<char> with_nans_of(const fs::Stream& got, const char* expected, std::int64_t items) {
  const int size = fs::item_size(got.format);
  std::vector<char> out(expected, expected + items * size);
  for (std::int64_t k = 0; k < items; ++k) {
    const char* const x = static_cast<const char*>(got.data) + k * size;
    if (is_nan(got.format, x) && is_nan(got.format, &out[k * size])) std::memcpy(&out[k * size], x, size);
  }
  return out;
}

// A rule, what rides along if something does, then its tensors and, if something does, what is known of each.
void replay_stored_step(Reader& r, fs::Compute compute, const std::vector<std::int64_t>& numels, int gap, bool rides) {
  Asked asked(r);
  if (rides) asked.read_ride(r);
  std::deque<Stored> tensors;
  std::deque<fs::Strided> row_major;
  std::vector<fs::Tensor> work;
  for (const std::int64_t n : numels) {
    const Stored& t = tensors.emplace_back(r, asked.streams, gap, tensors.size() * asked.streams);
    work.push_back(asked.tensor(compute, n, t.stream, t.strides()));
    if (t.strided) {
      const int kept_by = work.back().mask;  // or the parameter, of "nonzero"
      work.back().row_major =
          &row_major.emplace_back(fs::Strided{t.layout.size, {t.layout.stride[1], t.layout.stride[kept_by]}});
    }
  }
  std::vector<double> stats(rides ? fs::kStats * work.size() : 0);
  asked.run(work, asked.options.ride.stats ? &stats : nullptr);
  for (const Stored& t : tensors) {
    for (int k = 0; k < asked.streams; ++k) {
      if (fs::item_size(t.stream[k].format) == 1) {
        compare(static_cast<const signed char*>(t.stream[k].data), t.expected[k], t.items[k], gap, target + " mask");
        continue;
      }
      const int halves = fs::item_size(t.stream[k].format) / 2;
      const std::vector<char> want = with_nans_of(t.stream[k], t.expected[k], t.items[k]);
      compare(static_cast<const std::int16_t*>(t.stream[k].data), want.data(), t.items[k] * halves, gap * halves,
              target + " " + asked.name + " stored stream " + std::to_string(k));
    }
  }
  for (std::size_t k = 0; k < stats.size(); ++k) {
    compare(stats[k], r.get<double>(), target + " " + asked.name + " statistics " + std::to_string(k));
  }
}

// norm_type; every tensor; the expected norms, then their total.
void replay_stored_norm(Reader& r, const std::vector<std::int64_t>& numels, int gap) {
  const auto type = r.get<double>();
  std::deque<Stored> tensors;
  std::vector<fs::Tensor> work;
  for (const std::int64_t n : numels) {
    const Stored& t = tensors.emplace_back(r, 1, gap, tensors.size());
    work.push_back(gradient(t.stream[0], fs::compute_type(t.stream[0].format), n, t.strides()));
  }
  for (const double norm : norms_of(work, type)) {
    compare(norm, r.get<double>(), target + " stored norm " + std::to_string(type));
  }
}

void replay(Reader r, int gap) {
  while (r.at < r.end) {
    const auto kind = r.get<std::int64_t>();  // 0: step, 1: norm, 2 and 3: of stored streams, 4: step with rides
    const bool norm = kind == 1;
    const auto compute = static_cast<fs::Compute>(r.get<std::int64_t>());
    std::vector<std::int64_t> numels(r.get<std::int64_t>());
    for (std::int64_t& n : numels) n = r.get<std::int64_t>();
    const fs::FloatEnvironment environment;
    if (kind == 2 || kind == 4) {
      replay_stored_step(r, compute, numels, gap, kind == 4);
    } else if (kind == 3) {
      replay_stored_norm(r, numels, gap);
    } else if (compute == fs::Compute::float32) {
      (norm ? replay_norm<float> : replay_step<float>)(r, compute, numels, gap);
    } else {
      (norm ? replay_norm<double> : replay_step<double>)(r, compute, numels, gap);
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

// False after a difference.
bool replay_files(char** first, char** last) {
  calls = differences = 0;
  for (char** file = first; file < last; ++file) {
    std::ifstream stream(*file, std::ios::binary);
    const std::string data{std::istreambuf_iterator<char>(stream), {}};
    for (const int gap : kGaps) {
      flush_subnormals();
      replay({data.data(), data.data() + data.size()}, gap);
    }
  }
  std::printf("%s: %ld calls, %ld differences\n", target.c_str(), calls, differences);
  return differences == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--cuda") {
    if (fs::cuda::built_with() != "host") throw std::runtime_error("built without FUSEDSTEP_CUDA=HOST");
    target = "cuda";
    return replay_files(argv + 2, argv + argc) ? 0 : 1;
  }
  for (const std::string& name : fs::available_targets()) {
    fs::use_target(name);
    target = name;
    if (!replay_files(argv + 1, argv + argc)) return 1;
    if (fs::last_target() != name) throw std::runtime_error("target " + name + " did not run");
  }
}
