// One step call: groups of parameters with one rule each, read and validated whole, then run in one parallel region on
// the CPU (call.cpp), or in as few launches as there are rules and dtypes on CUDA devices (call_cuda.cpp). Of a torch
// optimizer: call_torch.cpp.
#pragma once
#include <deque>
#include <functional>
#include <memory>

#include "../call/tensor.h"
#include "../cpu/run.h"
#include "../cuda/run.h"
#include "../kernels/registry.h"
#include "interpreter.h"
#include "layout.h"

namespace fusedstep {

// What a norm that is NaN or infinite does: it spreads; nothing happens; RuntimeError, as in torch.
enum class Nonfinite { propagate, skip, raise };

struct Clipping {
  double norm_type = 2.0;
  bool per_tensor = false;
  Nonfinite nonfinite = Nonfinite::propagate;
  py::object over_ranks = py::none();  // or: takes the sums of this process's tensors, returns those of every rank
};

// Throws RuntimeError, as torch does, for the first non-finite norm if the caller asked for that.
void check_finite(const Norms& norms, const Clipping& clipping, const char* label);
// The norms of this process's tensors, or of all ranks'.
Norms norms_of(const std::vector<NormWork>& work, const Clipping& clipping);
std::vector<double> sums_of_ranks(const std::vector<double>& sums, const Clipping& clipping);
// Tells whoever has to know, before they are written, which objects will be; it may raise. None: nobody.
void announce(const py::object& before_write, const py::list& written);

// As a CUDA norm: 1, 2 or inf. ValueError for another order, which would need pow.
Norm cuda_norm(double norm_type, const char* label);
void check_norm_kind(const Array& gradient, const Where& where, Norm norm);
// Where a call is to leave its norm(s), unless `norm_out` is None.
void set_norm_out(cuda::Call& call, bool per_tensor, Reader& reader, const py::object& norm_out, const Where& where);
// Whether the host has to have the norm: nobody takes it on the device, or an error may follow from it.
bool waits_for_norm(const cuda::Call& call, const Clipping& clipping);
// Why a call can't be part of a CUDA graph, or null: it is not captured, or can.
const char* capture_obstacle(const cuda::Call& call, const Clipping& clipping);
bool is_captured(const cuda::Call& call);
// Runs it, with before_step(norms) when everything else that can fail has been done; null where the host has not
// waited for them. Returns those that it has waited for.
py::object run_cuda_call(cuda::Call call, const Clipping& clipping, bool waits,
                         const std::function<void(const Norms*)>& before_step);

// A group as Python hands it over (_core.pyi: Group).
struct Group {
  explicit Group(py::dict source);

  std::string label;
  std::string takes_sparse;  // the class that does, for messages
  int rule;
  std::vector<std::string> state_args;  // names in messages
  std::vector<py::object> state_keys;   // keys in a torch state dict, interned
  StepOptions options{};                // but for grad_scale, which is the call's
  py::object lr;                        // an array of one number, perhaps on a device, or null
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
  // None, or four float64s where the gradients are: norm and smallest coefficient of this step, then, counted up, steps
  // that clipped and steps that were skipped.
  py::object report = py::none();
  py::object before_write = py::none();  // see announce()
};

struct TorchParam;
class TorchWalk;

class StepCall {
 public:
  explicit StepCall(const CallOptions& options);
  ~StepCall();

  // Arrays given as lists; `step` is one number or one per parameter.
  void add_lists(const Group& group);
  // Parameters of a torch optimizer: gradients from .grad, state from `state`, a dict per parameter. A parameter
  // without usable state gets init(param, group) when the call has been validated; a step count that has to be on the
  // device and is not, to_device(step, param).
  void add_torch(const std::deque<Group>& groups, const py::object& state, const py::object& init,
                 const py::object& to_device);

  // Validates what concerns all arrays together, clips, steps. Returns the norm(s) if any group has a max_norm; None
  // too where they are left in norm_out. What follows the first write cannot fail.
  py::object run();

 private:
  struct Tensor {
    Array array[kMaxStreams];
    const Group* group;
    std::int64_t index, step;
    Scalar step_at;         // on a device, instead of `step`
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
  void add_limit(const Group& group);
  void read_report(const py::object& report);
  // Array k of a tensor: 0 the parameter, which comes first, 1 its gradient, then state.
  void read(Tensor& t, int k, PyObject* object);
  const char* label() const { return tensors_.empty() ? "" : tensors_.front().group->label.c_str(); }
  bool on_cuda() const { return !tensors_.empty() && tensors_.front().array[0].device != kHost; }
  void collect();
  // The gradients are known to have overflowed.
  bool overflowed() const { return found_inf_.device == kHost && found_inf_.value != 0.0; }
  bool counts_on_device() const {
    return found_inf_.device != kHost || (clipping_.nonfinite == Nonfinite::skip && clips());
  }
  bool clips() const { return least_max_norm_ >= 0.0; }
  // New state becomes the caller's; take_back() undoes it, unless commit() has followed. Where other ranks wait, before
  // they are told that all is well here.
  void keep_state();
  void take_back();
  void commit();
  void count();
  void write_report(const Norms* norms, bool skipped);
  Norms norms();
  void prepare(const Norms* norms);
  py::object run_cpu();
  py::object run_cuda();
  cuda::Call cuda_call();
  void check_capture(const cuda::Call& call);
  bool has_stateless_first() const;
  bool overflowed(const cuda::Call& call, bool waits);

  const Clipping clipping_;
  Reader reader_;
  const Number grad_scale_, found_inf_;
  const py::object norm_out_, before_write_;
  double* report_ = nullptr;
  int report_device_ = kHost;
  std::vector<py::object> keep_;  // while the interpreter lock is released
  std::unique_ptr<TorchWalk> walk_;
  std::vector<Tensor> tensors_;
  std::int64_t params_ = 0;
  double least_max_norm_ = -1.0;  // of all groups that have one
  std::vector<StepCount> counts_;
  std::vector<std::pair<py::object, py::object>> new_state_;    // parameter, its dict
  std::vector<std::pair<py::object, py::object>> moved_steps_;  // a parameter's dict, its step on the device
  std::vector<std::pair<py::object, py::object>> kept_;         // what keep_state() has added: mapping, key
  bool has_kept_ = false, committed_ = false;                   // committed: nothing that follows can fail
  py::object state_;                                            // of a torch optimizer: a mapping
  py::list touched_;

  std::deque<Strided> strided_;
  std::deque<UniformBytes> uniforms_;
  std::vector<StepWork> work_;
  std::vector<std::int64_t> numels_;
};

}  // namespace fusedstep
