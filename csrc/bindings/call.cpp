#include "call.h"

#include <cmath>
#include <limits>

#include "../cpu/run.h"
#include "../cuda/run.h"
#include "torch_walk.h"

namespace fusedstep {

PyCall::PyCall(const CallArgs& args) : args_(args) {
  reader_.use_stream(args.stream);
  const auto number = [&](const py::object& object, const char* name, Number if_none) {
    return object.is_none() ? if_none : read_number(reader_, object.ptr(), {args_.label.c_str(), name, 0});
  };
  call_.grad_scale = number(args.grad_scale, "grad_scale", {1.0});
  call_.found_inf = number(args.found_inf, "found_inf", {});
  call_.norm_type = args.norm_type;
  call_.per_tensor = args.per_tensor;
  call_.nonfinite = args.nonfinite;
  if (!args.report.is_none()) read_report(args.report);
}

PyCall::~PyCall() = default;

void PyCall::read_report(const py::object& report) {
  const Array a = reader_.read(report.ptr(), {"report", "report", 0});
  if (a.numel != 4 || a.format != Format::float64 || a.is_complex || !a.contiguous) {
    throw py::value_error("report has dtype " + a.dtype_text() + " and shape " + a.shape_text() +
                          ", expected 4 float64");
  }
  report_ = static_cast<double*>(a.data);
  report_device_ = a.device;
}

void PyCall::read(Given& t, int k, PyObject* object) {
  const Where at = t.where(k);
  if (k == 0) {
    placement_.set(param_ = object);
  } else {
    placement_.check(object, param_, at, t.index);
  }
  const Array& a = t.array[k] = reader_.read(object, at, k == 1 ? Lazy::resolve : Lazy::refuse);
  if (k == 1) check_gradient(a, at, t.array[0]);
  if (k > 1) check_state(a, at, t.array[0], t.group->rounding[k - 2] == Rounding::exact);
  if (k != 1) check_writable(a, at);
  if (t.group->options.host.clip_value < std::numeric_limits<double>::infinity()) check_ordered(a, at);
  if (k == 0) check_one_kind(a, at, given_.front().array[0]);
}

void PyCall::read_mask(Given& t, PyObject* object) {
  check_real(t, "a mask");
  t.has_mask = true;
  const Where at = t.where(t.mask());
  placement_.check(object, param_, at, t.index);
  const Array& a = t.array[t.mask()] = reader_.read_mask(object, at);
  check_beside_param(a, at, t.array[0]);
}

void PyCall::read_average(Given& t, PyObject* object) {
  t.has_average = true;
  const Where at = t.where(t.average());
  placement_.check(object, param_, at, t.index);
  const Array& a = t.array[t.average()] = reader_.read(object, at);
  check_state(a, at, t.array[0], true);
  check_writable(a, at);
}

// One row for each parameter, with or without a gradient.
void PyCall::read_stats() {
  if (args_.stats.is_none()) return;
  const Where where{args_.label.c_str(), "stats_out", 0};
  const Array a = reader_.read(args_.stats.ptr(), where);
  const int device = given_.empty() ? a.device : given_.front().device();
  if (a.format != Format::float64 || a.is_complex || !a.contiguous || a.numel != kStats * params_ ||
      a.device != device) {
    throw py::value_error(where.text() + " is " + a.dtype_text() + " of shape " + a.shape_text() + " on " +
                          device_text(a.device) + ", expected " + std::to_string(params_) + " x " +
                          std::to_string(kStats) + " contiguous float64 on " + device_text(device));
  }
  check_writable(a, where);
  for (const Given& t : given_) {
    if (t.device() != a.device) check_device(a.device, where.text(), t.device(), " as all parameters");
  }
  call_.stats = static_cast<double*>(a.data);
}

std::uint32_t PyCall::add_group(const Group& group, const py::object& lr) {
  // A coefficient falls with its max_norm, so that the least one gives the smallest.
  const double limit = group.options.host.max_norm;
  if (limit >= 0.0 && (!limits_norm() || limit < call_.least_max_norm)) call_.least_max_norm = limit;
  call_.options.push_back(group.options);
  call_.options.back().host.grad_scale = call_.grad_scale.value;
  lr_.push_back(lr);
  return static_cast<std::uint32_t>(call_.options.size() - 1);
}

// Functions know nothing of other ranks.
void PyCall::check_whole(const Given& t, PyObject* param) const {
  if (!is_sharded(param)) return;
  bool draws = false;
  for (int k = 2; k < t.group->streams(); ++k) {
    draws = draws || (t.group->rounding[k - 2] == Rounding::stochastic && t.array[k].format == Format::bfloat16);
  }
  const char* const what = t.group->options.host.max_norm >= 0.0 ? "max_norm"
                           : draws                               ? "state that random numbers round"
                           : !args_.stats.is_none()              ? "stats_out"
                                                                 : nullptr;
  if (!what) return;
  throw TypeError(t.where().text() + " is a DTensor, expected a plain tensor with " + what +
                  ": the optimizers of fusedstep.torch see the whole of it");
}

void PyCall::add_lists(const ListsGroup& given, const Beside& beside) {
  const auto& [kept, params, grads, state_arrays, step, indices, ids] = given;
  const Group& group = *kept;
  std::vector<py::list> lists{params, grads};
  for (const py::handle states : state_arrays) lists.emplace_back(py::reinterpret_borrow<py::object>(states));
  if (lists.size() != group.args.size()) throw py::value_error(group.label + ": not one list per state array");
  for (std::size_t k = 1; k < lists.size(); ++k) {
    if (lists[k].size() != lists[0].size()) {
      throw py::value_error(group.label + ": " + group.args[k] + " has " + std::to_string(lists[k].size()) +
                            " arrays, expected " + std::to_string(lists[0].size()) + " to match params");
    }
  }
  const auto& [masks, averages] = beside;
  const auto check_length = [&](const std::optional<py::list>& list, const char* name) {
    if (!list || list->size() == lists[0].size()) return;
    throw py::value_error(group.label + ": " + name + " has " + std::to_string(list->size()) + " arrays, expected " +
                          std::to_string(lists[0].size()) + " to match params");
  };
  check_length(masks, "masks");
  check_length(averages, "emas");
  const std::uint32_t options = add_group(group);
  const bool many_steps = py::isinstance<py::list>(step);
  if (given_.empty()) given_.reserve(lists[0].size());
  for (std::size_t i = 0; i < lists[0].size(); ++i) {
    Given& t = given_.emplace_back();
    t.group = &group;
    t.options = options;
    t.index = indices ? py::cast<std::int64_t>((*indices)[i]) : params_;
    t.id = ids ? py::cast<std::int64_t>((*ids)[i]) : params_;
    t.row = params_++;
    t.step = py::cast<std::int64_t>(many_steps ? py::object(py::list(step)[i]) : step);
    t.host_step = group.has_step;
    const auto item = [&lists, i](int k) { return PyList_GET_ITEM(lists[k].ptr(), i); };
    t.follows = averages && item(1) == Py_None;
    if (t.follows) {
      t.host_step = false;
      read(t, 0, item(0));
      t.array[1] = t.array[0];
      read_average(t, PyList_GET_ITEM(averages->ptr(), i));
      continue;
    }
    for (int k = 0; k < group.streams(); ++k) read(t, k, item(k));
    check_whole(t, item(0));
    check_rides(t);
    if (masks && PyList_GET_ITEM(masks->ptr(), i) != Py_None) read_mask(t, PyList_GET_ITEM(masks->ptr(), i));
    if (averages) read_average(t, PyList_GET_ITEM(averages->ptr(), i));
    for (int k = 0; k < group.scalars(); ++k) {
      const Where at = t.where_number(k);
      const Array a = reader_.read_scalar(item(group.streams() + k), at, true);
      check_beside(a, at, t);
      t.scalars[k] = a.scalar();
    }
  }
  for (py::list& l : lists) keep_.push_back(std::move(l));
  if (masks) keep_.push_back(*masks);
  if (averages) keep_.push_back(*averages);
}

void PyCall::add_gradients(const py::list& arrays, const Group& group, Phases phases, const py::object& total_norm) {
  call_.phases = phases;
  call_.in_place = true;
  written_ = arrays;
  const std::uint32_t options = add_group(group);
  given_.reserve(arrays.size());
  for (const py::handle object : arrays) {
    Given& t = given_.emplace_back();
    t.group = &group;
    t.options = options;
    t.index = params_++;
    t.step = 1;
    const Where at = t.where();
    // Norms and clipping do not look at signs, and treat both parts of a complex number alike.
    t.array[0] = t.array[1] = reader_.read(object.ptr(), at, Lazy::as_stored);
    check_one_kind(t.array[0], at, given_.front().array[0]);
    if (call_.does(kApply)) check_writable(t.array[0], at);
    if (group.options.host.clip_value < std::numeric_limits<double>::infinity()) check_ordered(t.array[0], at);
  }
  if (total_norm.is_none()) return;
  const Where at{args_.label.c_str(), "total_norm", 0};
  const bool on_cuda = !given_.empty() && given_.front().device() != kHost;
  call_.given_norm =
      on_cuda ? read_number(reader_, total_norm.ptr(), at) : Number{py::cast<double>(py::float_(total_norm))};
  if (on_cuda && call_.given_norm.device == kHost) {
    check_device(kHost, at.text(), given_.front().device(), " as the gradients");
  }
}

py::object PyCall::run() {
  if (!call_.in_place && limits_norm()) call_.phases |= kMeasure | kFold;
  read_stats();
  collect(given_, call_);
  try {
    if (!args_.over_ranks.is_none()) keep_state();
    py::object norm = run_phases();
    if (!committed_) take_back();
    return norm;
  } catch (...) {
    if (!committed_) take_back();
    throw;
  }
}

// Numbers that are read by the host alone, and not waited for on a device; a norm that is returned.
void PyCall::check_on_host() const {
  if (!args_.norm_out.is_none()) {
    throw py::value_error(args_.label + ": norm_out with arrays on the CPU, expected None: there the norm is returned");
  }
  const std::pair<const char*, const Number*> numbers[] = {{"grad_scale", &call_.grad_scale},
                                                           {"found_inf", &call_.found_inf}};
  for (const auto& [name, number] : numbers) {
    if (number->device == kHost) continue;
    throw py::value_error(args_.label + ": " + name + " is on device " + device_text(number->device) +
                          ", expected cpu as the parameters are: pass its .item(), or use a GradScaler of the CPU");
  }
}

// Whether the host has to have the norm: nobody takes it on the device, an error may follow from it, or state is made
// that a skipped step must leave no trace of.
bool PyCall::waits_for_norm() const {
  if (!call_.on_cuda()) return call_.does(kFold);
  return call_.does(kMeasure) &&
         (!call_.norm_out || call_.nonfinite == Nonfinite::raise || (call_.skips_nonfinite() && has_stateless_first()));
}

void PyCall::exchange(Run& run) {
  std::vector<std::int64_t> indices;  // of the parameters, in the order of the sums
  for (std::size_t k = 0; k < given_.size(); ++k) {
    if (call_.tensors[k].normed()) indices.push_back(given_[k].index);
  }
  if (call_.told_there) return exchange_there(run, indices);
  std::vector<double> sums;
  without_lock([&] { sums = run.measure(); });
  const py::object all = survive_exit([&] { return args_.over_ranks(sums, indices); });
  run.use_sums(add_ranks(py::cast<std::vector<std::vector<double>>>(all), call_.norm_type));
}

py::object PyCall::run_phases() {
  if ((report_device_ == kHost) != call_.on_cuda()) call_.report = report_;
  if (!call_.on_cuda() && !given_.empty()) check_on_host();
  for (const Given& t : given_) {
    if (lr_[t.options]) read_lr(t);
  }
  call_.told_there = call_.on_cuda() && ranks_on_device();
  if (call_.on_cuda()) place_on_cuda();
  const bool waits = waits_for_norm();
  call_.skips = overflowed(waits);
  std::unique_ptr<Run> run;
  if (call_.on_cuda()) {
    without_lock([&] { run = cuda::start(call_); });
  } else {
    run = cpu::start(call_);
  }
  if (!args_.over_ranks.is_none()) {
    exchange(*run);
  }
  const Norms* norms = nullptr;
  if (waits) without_lock([&] { norms = &run->fold(); });
  if (norms && !call_.skips) {
    check_finite(call_, *norms, args_.label.c_str());
    call_.skips = call_.skips_nonfinite() && !std::isfinite(norms->total);
  }
  // A step that is skipped is run all the same: the report says so.
  const bool happens = call_.does(kApply) && !call_.skips;
  if (happens) {
    run->prepare();
    commit();
  }
  if (call_.does(kApply) || !waits) without_lock([&] { run->apply(); });
  if (happens) {
    for (const auto& [at, value] : call_.counts) at.write(value);
  }
  if (!norms) return py::none();
  return call_.per_tensor ? py::cast(norms->each) : py::cast(norms->total);
}

}  // namespace fusedstep
