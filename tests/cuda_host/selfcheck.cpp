// AdamW and norms by the CUDA kernels on the CPU against the scalar target, over sizes, alignments, tensor counts,
// streams, devices and orders of threads. Exits with 1 at the first difference. tests/cuda/test_faults.py plants faults
// in the sources and expects that.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "../../csrc/cpu/dispatch.h"
#include "../../csrc/cpu/run.h"
#include "../../csrc/cuda/run.h"
#include "../../csrc/kernels/registry.h"
#include "host.h"

using namespace fusedstep;

namespace {

int adam() {
  static const int rule = find_rule("adam", {"exp_avg", "exp_avg_sq"});
  return rule;
}

StepOptions options(double max_norm) {
  StepOptions o{};
  const double hyper[] = {0.1, 0.9, 0.99, 1e-8};
  std::memcpy(o.hyper, hyper, sizeof hyper);
  o.weight_decay = 0.01;
  o.clip_value = INFINITY;
  o.max_norm = max_norm;
  o.grad_scale = 1.0;
  o.decoupled = true;
  return o;
}

// p, g, m, v of one tensor, each on 16 bytes but for the one that is `off`; the address sanitizer watches both ends.
struct Arrays {
  std::int64_t n;
  std::vector<std::unique_ptr<float[]>> memory;
  float* stream[4];

  Arrays(std::int64_t size, int off) : n(size) {
    for (int k = 0; k < 4; ++k) {
      const int shift = k == off ? 1 : 0;
      memory.emplace_back(new float[n + shift]);
      stream[k] = memory.back().get() + shift;
      for (std::int64_t i = 0; i < n; ++i)
        stream[k][i] = static_cast<float>(cuda_host::random() % 2001) / 1000.0f - 1.0f;
    }
    for (std::int64_t i = 0; i < n; ++i) stream[3][i] = std::fabs(stream[3][i]);
  }
  Arrays(const Arrays& other) : Arrays(other.n, -1) {
    for (int k = 0; k < 4; ++k) std::copy_n(other.stream[k], n, stream[k]);
  }

  void add_to(Call& call, int device) const {
    Tensor& t = call.tensors.emplace_back(Tensor{{}, 4, Compute::float32, adam(), n, nullptr, nullptr});
    for (int k = 0; k < 4; ++k) t.stream[k] = {stream[k], Format::float32};
    t.sum = call.sums++;
    t.device = device;
    t.step = 3;
  }
};

Call call_of(double max_norm) {
  Call call;
  call.phases = kMeasure | kFold | kPrepare | kApply;
  call.options.push_back({options(max_norm), {}});
  return call;
}

double on_cpu(const std::vector<Arrays>& tensors, double max_norm) {
  Call call = call_of(max_norm);
  for (const Arrays& t : tensors) t.add_to(call, kHost);
  const auto run = cpu::start(call);
  const double norm = run->fold().total;
  run->prepare();
  run->apply();
  return norm;
}

// On several devices in turn, with the norm left on the first.
Call on_devices(const std::vector<Arrays>& tensors, double max_norm, int devices, double* norm) {
  Call call = call_of(max_norm);
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].add_to(call, static_cast<int>(i) % devices);
  for (int d = 0; d < devices; ++d) call.streams.emplace_back(d, nullptr);
  call.norm_out = norm;
  call.result_device = 0;
  return call;
}

void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "selfcheck: %s\n", what);
  std::exit(1);
}

void step(const std::vector<std::int64_t>& sizes, int off, int devices, std::uint64_t order) {
  cuda_host::seed(order);
  std::vector<Arrays> tensors;
  tensors.reserve(sizes.size());
  for (const std::int64_t n : sizes) tensors.emplace_back(n, off);
  std::vector<Arrays> expected(tensors);
  const double norm = on_cpu(expected, 0.5);
  double found = -1.0;
  Call call = on_devices(tensors, 0.5, devices, &found);
  cuda::start(call)->apply();
  cuda_host::synchronize();
  const std::string error = cuda_host::last_error();
  require(error.empty(), error.c_str());
  require(found == norm, "the norm differs");
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    for (int k = 0; k < 4; ++k) {
      require(std::memcmp(tensors[i].stream[k], expected[i].stream[k], tensors[i].n * sizeof(float)) == 0,
              "an array differs");
    }
  }
}

// A table that one stream fills and others read: only norms, so that nothing else orders them.
void streams(std::uint64_t order) {
  cuda_host::seed(order);
  std::vector<Arrays> tensors;
  for (int i = 0; i < 1500; ++i) tensors.emplace_back(3, -1);
  double found[4];
  for (const std::uintptr_t stream : {1, 1, 2, 3}) {
    static int turn = 0;
    Call call = on_devices(tensors, 0.5, 1, &found[turn % 4]);
    call.streams = {{0, reinterpret_cast<void*>(stream)}};
    call.phases = kMeasure | kFold;
    cuda::start(call)->apply();
    if (turn++ % 4 == 0) cuda_host::synchronize();
  }
  cuda_host::synchronize();
  require(found[0] == found[1] && found[1] == found[2] && found[2] == found[3], "norms of several streams differ");
}

}  // namespace

int main() {
  use_target("scalar");
  for (std::uint64_t order = 0; order < 4; ++order) {
    for (int off = -1; off < 4; ++off) step({1, 3, 4, 7, 255, 1027, 0, 2049, 16387}, off, 1, order);
    step({3 * 16384 + 5, 40000, 16384}, -1, 1, order);
    step({100, 40000, 3, 17, 20000}, -1, 3, order);
    step(std::vector<std::int64_t>(1100, 2), -1, 1, order);
    step({40 * 16384 + 1}, -1, 1, order);
    streams(order);
  }
  std::puts("equal");
}
