// One step call: groups of parameters with one rule each, read and validated whole, then run in one parallel region on
// the CPU (call.cpp), or in as few launches as there are rules and dtypes on CUDA devices (call_cuda.cpp).
#pragma once
#include <deque>
#include <functional>
#include <memory>

#include "../kernels/registry.h"
#include "layout.h"

namespace fusedstep {

struct Clipping {
  double norm_type = 2.0;
  bool per_tensor = false;
  bool error_if_nonfinite = false;
};

// Throws RuntimeError, as torch does, for the first non-finite norm if the caller asked for that.
void check_finite(const Norms& norms, const Clipping& clipping, const char* label);

// As a CUDA norm: 1, 2 or inf. ValueError for another order, which would need pow.
Norm cuda_norm(double norm_type, const char* label);
void check_norm_kind(const Array& gradient, const Where& where, Norm norm);
// Where a call is to leave its norm(s), unless `norm_out` is None.
void set_norm_out(cuda::Call& call, bool per_tensor, Reader& reader, const py::object& norm_out, const Where& where);
// Whether the host has to have the norm: nobody takes it on the device, or an error may follow from it.
bool waits_for_norm(const cuda::Call& call, const Clipping& clipping);
bool is_captured(const cuda::Call& call);
// Runs it, with commit() when everything that can fail has been done; the norm(s) if the host has waited for them.
py::object run_cuda_call(cuda::Call call, const Clipping& clipping, const char* label,
                         const std::function<void()>& commit);

// A group as Python hands it over (_core.pyi: Group).
struct Group {
  explicit Group(py::dict source);

  std::string label;
  int rule;
  std::vector<std::string> state_args;  // names in messages
  std::vector<py::object> state_keys;   // keys in a torch state dict, interned
  StepOptions options{};                // but for grad_scale, which is the call's
  std::int32_t lr_index = -1;
  py::object lr;  // an array of one number, perhaps on a device, or null
  bool has_step, capturable;
  py::dict source;
};

// What concerns all groups of a call.
struct CallOptions {
  const char* label;
  py::object grad_scale;  // a float, or an array of one number
  py::object found_inf;   // None, or an array of one number: other than zero means no step
  py::object norm_out;    // None, or a float64 array on the device for the norm(s)
  py::object stream;      // None, or the address of a CUDA stream
  Clipping clipping;
};

struct TorchParam;
class TorchWalk;

class StepCall {
 public:
  explicit StepCall(const CallOptions& options);
  ~StepCall();

  // Nothing is to be done: the gradients are known to have overflowed.
  bool skips() const { return found_inf_.device == kHost && found_inf_.value != 0.0; }

  // Arrays given as lists; `step` is one number or one per parameter.
  void add_lists(const Group& group);
  // Parameters of a torch optimizer: gradients from .grad, state from `state`, a dict per parameter. A parameter
  // without usable state gets init(param, group) when the call has been validated; a step count that has to be on the
  // device and is not, to_device(step, param).
  void add_torch(const std::deque<Group>& groups, const py::dict& state, const py::object& init,
                 const py::object& to_device);

  // Validates what concerns all arrays together, clips, steps. Returns the norm(s) if any group has a max_norm; None
  // too where they are left in norm_out.
  py::object run();
  // Parameters of add_torch that were updated.
  py::list touched() const { return touched_; }

 private:
  struct Tensor {
    Array array[kMaxStreams];
    const Group* group;
    std::int64_t index, step;
    cuda::Scalar step_at;   // on a device, instead of `step`
    bool host_step, fresh;  // counted on the host; state that this call makes
  };
  // Where a torch step count is written once the step has happened.
  struct StepCount {
    void* at;
    bool wide;
    std::int64_t value;
  };

  void add_param(TorchParam& p, const py::object& init, const py::object& to_device);
  void add_step(Tensor& t, TorchParam& p, const py::object& to_device);
  Where where(const Tensor& t, int k) const;
  // Array k of a tensor: 0 the parameter, which comes first, 1 its gradient, then state.
  void read(Tensor& t, int k, PyObject* object);
  const char* label() const { return tensors_.empty() ? "" : tensors_.front().group->label.c_str(); }
  bool on_cuda() const { return !tensors_.empty() && tensors_.front().array[0].device != kHost; }
  void collect();
  void commit();
  void count();
  Norms norms();
  void prepare(const Norms* norms);
  py::object run_cuda();
  cuda::Call cuda_call();
  void check_capture(const cuda::Call& call);
  bool overflowed(const cuda::Call& call);

  const Clipping clipping_;
  Reader reader_;
  const Number grad_scale_, found_inf_;
  const py::object norm_out_;
  std::vector<py::object> keep_;  // while the interpreter lock is released
  std::unique_ptr<TorchWalk> walk_;
  std::vector<Tensor> tensors_;
  std::int64_t params_ = 0;
  bool clips_ = false;  // some group has a max_norm
  std::vector<StepCount> counts_;
  std::vector<std::pair<py::object, py::object>> new_state_;    // parameter, its dict
  std::vector<std::pair<py::object, py::object>> moved_steps_;  // a parameter's dict, its step on the device
  py::dict state_;
  py::list touched_;

  std::deque<Strided> strided_;
  std::deque<UniformBytes> uniforms_;
  std::vector<StepWork> work_;
  std::vector<std::int64_t> numels_;
};

}  // namespace fusedstep
