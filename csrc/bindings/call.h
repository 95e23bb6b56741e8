// One step call: groups of parameters with one rule each, read and validated whole, then run in one parallel region.
#pragma once
#include <deque>
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

// min(1, max_norm / (norm + 1e-6)), NaN if the norm is: torch.nn.utils.clip_grad_norm_ in float64.
double clip_coefficient(double norm, double max_norm);

// A group as Python hands it over (_core.pyi: Group).
struct Group {
  explicit Group(py::dict source);

  std::string label;
  int rule;
  std::vector<std::string> state_args;  // names in messages
  std::vector<py::object> state_keys;   // keys in a torch state dict, interned
  double hyper[kMaxHyper] = {};
  double weight_decay, decay_mul, clip_value, max_norm;  // decay_mul 1: no decoupled decay; max_norm < 0: none
  bool maximize, has_step;
  py::dict source;
};

struct TorchParam;
class TorchWalk;

class StepCall {
 public:
  StepCall(double grad_scale, Clipping clipping);
  ~StepCall();

  // Arrays given as lists; `step` is one number or one per parameter.
  void add_lists(const Group& group);
  // Parameters of a torch optimizer: gradients from .grad, state from `state`, a dict per parameter. A parameter
  // without usable state gets init(param, group) when the call has been validated.
  void add_torch(const std::deque<Group>& groups, const py::dict& state, const py::object& init);

  // Validates what concerns all arrays together, clips, steps. Returns the norm(s) if any group has a max_norm.
  py::object run();
  // Parameters of add_torch that were updated.
  py::list touched() const { return touched_; }

 private:
  struct Tensor {
    Array array[kMaxStreams];
    const Group* group;
    std::int64_t index, step;
  };
  // Where a torch step count is written once the step has happened.
  struct StepCount {
    void* at;
    bool wide;
    std::int64_t value;
  };

  void add_param(TorchParam& p, const py::object& init);
  Where where(const Tensor& t, int k) const;
  // Array k of a tensor: 0 the parameter, which comes first, 1 its gradient, then state.
  void read(Tensor& t, int k, PyObject* object);
  std::int64_t read_step(PyObject* object, const Where& where);
  Norms norms();
  void prepare(const Norms* norms);

  const double grad_scale_;
  const Clipping clipping_;
  Reader reader_;
  std::vector<py::object> keep_;  // while the interpreter lock is released
  std::unique_ptr<TorchWalk> walk_;
  std::vector<Tensor> tensors_;
  std::int64_t params_ = 0;
  bool clips_ = false;  // some group has a max_norm
  std::vector<StepCount> counts_;
  std::vector<std::pair<py::object, py::object>> new_state_;  // parameter, its dict
  py::dict state_;
  py::list touched_;

  std::deque<Strided> strided_;
  std::deque<UniformBytes> uniforms_;
  std::vector<StepWork> work_;
  std::vector<std::int64_t> numels_;
};

}  // namespace fusedstep
