// One call on GPUs: norms and a step over the tensors of one or several devices. Free of CUDA's own types; without CUDA
// the same functions exist and say so (absent.cpp).
#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../call/tensor.h"
#include "args.h"

namespace fusedstep::cuda {

// "" in a build without CUDA, else the runtime's version; "host" in the build that runs the kernels on the CPU.
std::string built_with();
int device_count();  // 0 without a driver, too

// Whether work put on this stream now becomes a graph.
bool is_capturing(int device, void* stream);

// One number from the device, waiting for the stream.
double read(const Scalar& scalar, int device, void* stream);

// One tensor.
struct Work {
  StepWork tensor;             // without its uniform
  const Strided* norm_layout;  // of the gradient in row-major order
  bool normed;
  int device;
  std::uint32_t options;
  std::int64_t step;
  Scalar step_at;
};

struct Call {
  std::vector<Work> work;
  std::vector<DeviceOptions> options;
  std::vector<std::pair<int, void*>> streams;  // of each device
  bool steps = true;                           // else only the norm is wanted

  bool skips = false;     // the step is known not to happen: only norm and report are wanted
  bool has_norm = false;  // the norm of the tensors that are `normed`
  Norm norm = Norm::two;
  bool per_tensor = false;
  double* norm_out = nullptr;  // on norm_device: where the result goes, if anyone wants it there
  int norm_device = -1;

  bool skip_nonfinite = false;   // a norm that is not finite means that nothing happens
  double least_max_norm = -1.0;  // of the options; < 0: none
  double* report = nullptr;      // on norm_device: norm_out, coefficient, counts of clipped and skipped steps

  double scale = 1.0;                        // what gradients were multiplied by, unless grad_scale
  Scalar grad_scale, found_inf, given_norm;  // given_norm: instead of has_norm
  int scalar_device = -1;                    // where these are
};

class Run {
 public:
  // Everything that can fail for a reason outside the device itself: memory, tables, kernels for this device.
  explicit Run(Call call);
  ~Run();

  // What each tensor adds to the norm, waiting for it: as run_sums(). use_total() then puts a norm, of gradients that
  // are still scaled, in the place of these tensors'.
  std::vector<double> sums();
  void use_total(double norm);
  // Computes the norm, waits for it, and returns it, or one per tensor. Nothing of the caller's has changed.
  std::vector<double> norms();
  // Norm (unless norms() has run) and step. Waits for nothing.
  void step();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fusedstep::cuda
