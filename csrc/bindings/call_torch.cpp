// A step call of a torch optimizer: parameters, gradients and state where torch has them, state that is made, counts.

#include <cmath>

#include "torch_walk.h"

namespace fusedstep {
namespace {

// Without a count all that a rule asks is whether this is the first step.
constexpr std::int64_t kFirst = 1, kLater = 2;

}  // namespace

// The count on the host is checked and written back; on a device it is neither read nor written here.
void PyCall::add_step(Given& t, TorchParam& p, const py::object& to_device) {
  const Group& group = *t.group;
  py::object& step = p.item[group.states.size()];
  const Where where{group.label.c_str(), "step", p.index};
  Array a = reader_.read_scalar(step.ptr(), where);
  const int device = t.device();
  if (device != kHost && a.device == kHost && (group.capturable || counts_on_device())) {
    step = survive_exit([&] { return to_device(step, p.param); });
    a = reader_.read_scalar(step.ptr(), where);
    if (t.fresh) {
      new_state_.back().second["step"] = step;
    } else {
      moved_steps_.emplace_back(p.entry, step);
    }
  }
  check_writable(a, where);
  if (a.device != kHost && a.device != device) {
    throw py::value_error(where.text() + " is on device " + a.device_text() + ", expected " + t.array[0].device_text() +
                          " to match params[" + std::to_string(p.index) + "]");
  }
  const Scalar count = a.scalar();
  t.host_step = a.device == kHost;
  if (!t.host_step) {
    t.step_at = count;
    return;
  }
  const double value = count.read();
  if (!(value >= 0.0 && value < static_cast<double>(kMostSteps)) || value != std::floor(value)) {
    throw py::value_error(where.text() + " is " + std::to_string(value) + ", expected a whole number >= 0");
  }
  t.step = static_cast<std::int64_t>(value) + 1;
  call_.counts.emplace_back(count, t.step);
}

void PyCall::add_torch(const std::vector<TorchGroup>& groups, const py::object& state, const py::object& init,
                       const py::object& to_device) {
  state_ = state;
  for (const auto& [group, params, lr, options] : groups) add_group(*group, lr.is_none() ? py::object() : lr);
  walk_ = std::make_unique<TorchWalk>(groups, state);
  given_.reserve(walk_->size());
  walk_->each([&](TorchParam& p) { add_param(p, init, to_device); });
}

void PyCall::add_param(TorchParam& p, const py::object& init, const py::object& to_device) {
  const Group& group = *p.from->group;
  Given& t = given_.emplace_back();
  t.group = &group;
  t.options = p.from->index;
  t.index = p.index;
  read(t, 0, p.param.ptr());
  read(t, 1, p.grad.ptr());
  make_state(t, p, init);
  for (std::size_t k = 0; k < group.states.size(); ++k) read(t, static_cast<int>(2 + k), p.item[k].ptr());
  if (group.has_step) {
    add_step(t, p, to_device);
  } else {
    t.step = t.fresh ? kFirst : kLater;
  }
  written_.append(p.param);
}

// Where there is none. SGD's buffer may be None or missing (torch writes both); elsewhere a state is whole or not there
// at all.
void PyCall::make_state(Given& t, TorchParam& p, const py::object& init) {
  const Group& group = *p.from->group;
  const std::size_t keys = group.states.size();
  t.fresh = (keys > 0 || group.has_step) && (!p.entry || py::len(p.entry) == 0);
  if (!group.has_step && keys > 0) t.fresh = t.fresh || !p.item[0];
  if (t.fresh) {
    const py::dict made = survive_exit([&] { return init(p.param, *p.from->options); });
    for (std::size_t k = 0; k < keys; ++k) p.item[k] = made[p.from->state_keys[k]];
    if (group.has_step) p.item[keys] = made["step"];
    new_state_.emplace_back(p.param, made);
  }
  for (std::size_t k = 0; k < keys + group.has_step; ++k) {
    if (p.item[k]) continue;
    const std::string key = k < keys ? group.states[k] : "step";
    throw py::value_error(group.label + ": state of params[" + std::to_string(p.index) + "] has no '" + key +
                          "'; options that add state cannot be switched on later");
  }
}

void PyCall::keep_state() {
  if (has_kept_) return;
  has_kept_ = true;
  for (const auto& [param, fresh] : new_state_) {
    py::object entry = find_item(state_, param);
    if (!entry || py::len(entry) == 0) {
      state_[param] = fresh;
      kept_.emplace_back(state_, param);
      continue;
    }
    for (const auto& [key, value] : py::cast<py::dict>(fresh)) {
      entry[key] = value;
      kept_.emplace_back(entry, py::reinterpret_borrow<py::object>(key));
    }
  }
  for (const auto& [entry, step] : moved_steps_) entry["step"] = step;
}

void PyCall::take_back() {
  for (const auto& [mapping, key] : kept_) {
    if (PyObject_DelItem(mapping.ptr(), key.ptr()) != 0) PyErr_Clear();
  }
  kept_.clear();
}

// The last thing that can fail.
void PyCall::commit() {
  keep_state();
  if (!args_.before_write.is_none()) survive_exit([&] { args_.before_write(written_); });
  committed_ = true;
}

}  // namespace fusedstep
