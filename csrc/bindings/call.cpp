#include "call.h"

#include <cmath>
#include <limits>

#include "../cpu/threads.h"

namespace fusedstep {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

py::object field(const py::dict& d, const char* name) {
  PyObject* value = PyDict_GetItemString(d.ptr(), name);
  if (!value) throw py::key_error(name);
  return py::reinterpret_borrow<py::object>(value);
}

template <class T>
T field(const py::dict& d, const char* name) {
  return py::cast<T>(field(d, name));
}

double number_or(const py::dict& d, const char* name, double if_none) {
  const py::object value = field(d, name);
  return value.is_none() ? if_none : py::cast<double>(value);
}

// An item of a dict, borrowed; null if missing or None.
PyObject* get_item(PyObject* dict, PyObject* key) {
  PyObject* item = PyDict_GetItemWithError(dict, key);
  if (!item && PyErr_Occurred()) throw py::error_already_set();
  return item == Py_None ? nullptr : item;
}

py::list sequence(const py::dict& source, const char* name) { return py::list(field(source, name)); }

}  // namespace

// A dict in its own order, beside a list of keys in (mostly) the same order: optimizer state is created in parameter
// order, so the next entry is nearly always the one wanted, and no tensor needs hashing, which torch does in Python.
class StepCall::StateWalk {
 public:
  explicit StateWalk(const py::dict& state) : state_(state.ptr()) { advance(); }

  // The value stored for `param`, borrowed, or null.
  PyObject* find(PyObject* param) {
    if (key_ == param) {
      PyObject* found = value_;
      advance();
      return found;
    }
    PyObject* found = PyDict_GetItemWithError(state_, param);
    if (!found && PyErr_Occurred()) throw py::error_already_set();
    return found;
  }
  void skip(PyObject* param) {
    if (key_ == param) advance();
  }

 private:
  void advance() {
    if (!PyDict_Next(state_, &position_, &key_, &value_)) key_ = nullptr;
  }
  PyObject* state_;
  Py_ssize_t position_ = 0;
  PyObject *key_ = nullptr, *value_ = nullptr;
};

void check_finite(const Norms& norms, const Clipping& clipping, const char* label) {
  if (!clipping.error_if_nonfinite) return;
  const auto fail = [label](const std::string& which, double norm) {
    throw std::runtime_error(std::string(label) + ": " + which + " is non-finite (" + std::to_string(norm) +
                             "); nothing was changed. error_if_nonfinite=False lets it pass");
  };
  if (!clipping.per_tensor) {
    if (!std::isfinite(norms.total)) fail("the total norm", norms.total);
    return;
  }
  for (std::size_t t = 0; t < norms.each.size(); ++t) {
    if (!std::isfinite(norms.each[t])) fail("the norm of array " + std::to_string(t), norms.each[t]);
  }
}

double clip_coefficient(double norm, double max_norm) {
  const double coefficient = max_norm / (norm + 1e-6);
  return coefficient > 1.0 ? 1.0 : coefficient;
}

Group::Group(py::dict group) : source(std::move(group)) {
  label = field<std::string>(source, "label");
  const auto states = field<std::vector<std::string>>(source, "states");
  const auto name = field<std::string>(source, "rule");
  rule = find_rule(name, states);
  if (rule < 0) throw py::value_error("no rule '" + name + "' with these state arrays");
  state_args = field<std::vector<std::string>>(source, "state_args");
  for (const auto& key : states) {
    state_keys.push_back(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(key.c_str())));
  }
  const py::dict values = field<py::dict>(source, "hyper");
  const RuleInfo& info = all_rules()[rule];
  for (std::size_t k = 0; k < info.hyper.size(); ++k) hyper[k] = field<double>(values, info.hyper[k].c_str());
  weight_decay = field<double>(source, "weight_decay");
  decay_mul = 1.0;
  if (field<bool>(source, "decoupled")) {
    decay_mul = 1.0 - field<double>(values, "lr") * weight_decay;
    weight_decay = 0.0;
  }
  maximize = field<bool>(source, "maximize");
  max_norm = number_or(source, "max_norm", -1.0);
  clip_value = number_or(source, "clip_value", kInf);
  has_step = field<bool>(source, "has_step");
}

Where StepCall::where(const Tensor& t, int k) const {
  const Group& g = *t.group;
  return {g.label.c_str(), k == 0 ? "params" : k == 1 ? "grads" : g.state_args[k - 2].c_str(), t.index};
}

void StepCall::read(Tensor& t, int k, PyObject* object) {
  const Where at = where(t, k);
  const Array& a = t.array[k] = reader_.read(object, at);
  if (k > 0) check_matches(a, at, t.array[0]);
  if (k != 1) check_writable(a, at);
  if (a.is_complex && t.group->clip_value < kInf) {
    throw py::type_error(at.text() + " has dtype " + a.dtype_text() +
                         ", expected real for clip_value: complex numbers have no order to clip by");
  }
}

void StepCall::add_lists(const Group& group) {
  const std::string& label = group.label;
  std::vector<py::list> lists{sequence(group.source, "params"), sequence(group.source, "grads")};
  for (const py::handle states : sequence(group.source, "state_arrays")) {
    lists.emplace_back(py::reinterpret_borrow<py::object>(states));
  }
  for (std::size_t k = 1; k < lists.size(); ++k) {
    if (lists[k].size() != lists[0].size()) {
      throw py::value_error(label + ": " + (k == 1 ? "grads" : group.state_args[k - 2]) + " has " +
                            std::to_string(lists[k].size()) + " arrays, expected " + std::to_string(lists[0].size()) +
                            " to match params");
    }
  }
  clips_ = clips_ || group.max_norm >= 0.0;
  if (lists.size() != 2 + group.state_args.size()) throw py::value_error(label + ": not one list per state array");
  const py::object step = field(group.source, "step");
  const py::list indices = group.source.contains("indices") ? sequence(group.source, "indices") : py::list();
  const bool many_steps = py::isinstance<py::list>(step);
  for (std::size_t i = 0; i < lists[0].size(); ++i) {
    Tensor& t = tensors_.emplace_back();
    t.group = &group;
    t.index = indices.empty() ? params_ : py::cast<std::int64_t>(indices[i]);
    ++params_;
    t.step = py::cast<std::int64_t>(many_steps ? py::object(py::list(step)[i]) : step);
    for (std::size_t k = 0; k < lists.size(); ++k) read(t, static_cast<int>(k), PyList_GET_ITEM(lists[k].ptr(), i));
  }
  for (py::list& l : lists) keep_.push_back(std::move(l));
}

std::int64_t StepCall::read_step(PyObject* object, const Where& where) {
  const Array a = reader_.read_scalar(object, where);
  check_writable(a, where);
  const bool wide = a.dtype == DType::float64;
  const double value = wide ? *static_cast<double*>(a.data) : *static_cast<float*>(a.data);
  if (!(value >= 0.0 && value < 9e15) || value != std::floor(value)) {
    throw py::value_error(where.text() + " is " + std::to_string(value) + ", expected a whole number >= 0");
  }
  const std::int64_t next = static_cast<std::int64_t>(value) + 1;
  counts_.push_back({a.data, wide, next});
  return next;
}

void StepCall::add_torch(const std::deque<Group>& groups, const py::dict& state, const py::object& init) {
  state_ = state;
  StateWalk walk(state);
  for (const Group& group : groups) {
    clips_ = clips_ || group.max_norm >= 0.0;
    for (const py::handle param : field<py::list>(group.source, "params")) add_param(group, param, walk, init);
  }
}

void StepCall::add_param(const Group& group, py::handle param, StateWalk& walk, const py::object& init) {
  static PyObject* const grad_name = PyUnicode_InternFromString("grad");
  static PyObject* const step_name = PyUnicode_InternFromString("step");
  const std::int64_t index = params_++;
  py::object grad = py::reinterpret_steal<py::object>(PyObject_GetAttr(param.ptr(), grad_name));
  if (!grad) throw py::error_already_set();
  if (grad.is_none()) return walk.skip(param.ptr());

  const bool has_state = group.has_step || !group.state_keys.empty();
  py::object entry = py::reinterpret_borrow<py::object>(has_state ? walk.find(param.ptr()) : nullptr);
  if (entry && !PyDict_Check(entry.ptr())) {
    throw py::type_error(group.label + ": state of params[" + std::to_string(index) + "] is no dict");
  }
  // SGD's buffer may be None or missing (torch writes both); elsewhere a state is whole or not there at all.
  bool fresh = has_state && (!entry || PyDict_Size(entry.ptr()) == 0);
  if (!group.has_step && !fresh) {
    for (const py::object& key : group.state_keys) fresh = fresh || !get_item(entry.ptr(), key.ptr());
  }
  Tensor& t = tensors_.emplace_back();
  t.group = &group;
  t.index = index;
  read(t, 0, param.ptr());
  read(t, 1, grad.ptr());
  if (fresh) {  // only now: state is made like the parameter
    entry = init(param, group.source);
    new_state_.emplace_back(py::reinterpret_borrow<py::object>(param), entry);
  }
  const auto item = [&](PyObject* key) {
    PyObject* found = get_item(entry.ptr(), key);
    if (!found) {
      throw py::value_error(group.label + ": state of params[" + std::to_string(index) + "] has no '" +
                            py::cast<std::string>(key) + "'; options that add state cannot be switched on later");
    }
    keep_.push_back(py::reinterpret_borrow<py::object>(found));
    return found;
  };
  for (std::size_t k = 0; k < group.state_keys.size(); ++k) {
    read(t, static_cast<int>(2 + k), item(group.state_keys[k].ptr()));
  }
  t.step = group.has_step ? read_step(item(step_name), {group.label.c_str(), "step", index}) : fresh ? 1 : 2;
  keep_.push_back(std::move(grad));
  touched_.append(param);
}

Norms StepCall::norms() {
  std::vector<NormWork> work;
  for (const Tensor& t : tensors_) {
    if (t.group->max_norm < 0.0) continue;
    const Array& g = t.array[1];
    auto layout = common_layout(&g, 1, true);
    const Strided* strided = layout ? &strided_.emplace_back(std::move(*layout)) : nullptr;
    work.push_back({g.data, g.dtype, g.is_complex, g.numel, strided});
  }
  Norms norms;
  {
    const py::gil_scoped_release release;
    norms = run_norm(work, clipping_.norm_type);
  }
  norms.total /= grad_scale_;
  for (double& n : norms.each) n /= grad_scale_;
  return norms;
}

void StepCall::prepare(const Norms* norms) {
  const FloatEnvironment environment;
  const Tensor* last = nullptr;
  double last_mul = 0.0;
  std::size_t clipped = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor& t = tensors_[i];
    const Group& g = *t.group;
    double mul = 1.0;
    if (norms && g.max_norm >= 0.0) {
      mul = clip_coefficient(clipping_.per_tensor ? norms->each[clipped] : norms->total, g.max_norm);
      ++clipped;
    }
    mul /= grad_scale_;
    if (g.maximize) mul = -mul;
    const DType dtype = t.array[0].dtype;
    if (!last || last->group != &g || last->step != t.step || last->array[0].dtype != dtype || !(last_mul == mul)) {
      const Common<double> common{mul, g.clip_value, g.weight_decay, g.decay_mul};
      all_rules()[g.rule].prepare(dtype, common, g.hyper, t.step, uniforms_.emplace_back().bytes);
    }
    last = &t;
    last_mul = mul;
    work_[i].uniform = uniforms_.back().bytes;
  }
}

py::object StepCall::run() {
  AliasCheck alias;
  alias.reserve(tensors_.size() * kMaxStreams);
  work_.reserve(tensors_.size());
  numels_.reserve(tensors_.size());
  for (const Tensor& t : tensors_) {
    const Group& g = *t.group;
    const int streams = 2 + static_cast<int>(g.state_args.size());
    StepWork& w = work_.emplace_back();
    for (int k = 0; k < streams; ++k) {
      alias.add(t.array[k], k != 1, where(t, k));
      w.stream[k] = t.array[k].data;
    }
    auto layout = common_layout(t.array, streams, false);
    w.strided = layout ? &strided_.emplace_back(std::move(*layout)) : nullptr;
    w.streams = streams;
    w.dtype = t.array[0].dtype;
    w.rule = g.rule;
    w.numel = t.array[0].numel * (t.array[0].is_complex ? 2 : 1);
    numels_.push_back(w.numel);
  }
  alias.verify();

  py::object result = py::none();
  if (clips_) {
    const Norms found = norms();
    check_finite(found, clipping_, tensors_.empty() ? "" : tensors_.front().group->label.c_str());
    result = clipping_.per_tensor ? py::cast(found.each) : py::cast(found.total);
    prepare(&found);
  } else {
    prepare(nullptr);
  }
  const Plan plan(numels_);
  // Everything that can fail has been done.
  for (const auto& [param, fresh] : new_state_) {
    if (state_.contains(param) && py::len(state_[param]) > 0) {
      state_[param].attr("update")(fresh);
    } else {
      state_[param] = fresh;
    }
  }
  {
    const py::gil_scoped_release release;
    run_step(work_, plan, clips_);
  }
  for (const StepCount& c : counts_) {
    if (c.wide) {
      *static_cast<double*>(c.at) = static_cast<double>(c.value);
    } else {
      *static_cast<float*>(c.at) = static_cast<float>(c.value);
    }
  }
  return result;
}

}  // namespace fusedstep
