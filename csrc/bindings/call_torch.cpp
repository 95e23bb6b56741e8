// A step call of a torch optimizer: parameters, gradients and state where torch has them, state that is made, counts.

#include <cmath>

#include "torch_walk.h"

namespace fusedstep {
namespace {

// Without a count all that a rule asks is whether this is the first step.
constexpr std::int64_t kFirst = 1, kLater = 2;
// Keys of random numbers take 8 * id modulo 2**64.
constexpr std::int64_t kMostIds = std::int64_t{1} << 60;

// What random numbers know a parameter by, the last of the rule's keys.
std::int64_t id_of(const Given& t, const TorchParam& p) {
  const py::object& value = p.item[p.from->required - 1];
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  const long long id = index ? PyLong_AsLongLong(index.ptr()) : -1;
  if (!PyErr_Occurred() && id >= 0 && id < kMostIds) return id;
  PyErr_Clear();
  throw TypeError(t.group->label + ": tensor_id of params[" + std::to_string(p.index) + "] is " +
                  py::cast<std::string>(py::repr(value)).substr(0, 80) + ", expected an integer from 0 to 2**60 - 1");
}

// Short state that came in behind the optimizer's back would be rounded by the random numbers of no parameter.
void check_drawn(const Given& t, int k) {
  const bool draws = t.group->rounding[k - 2] == Rounding::stochastic && t.array[k].format == Format::bfloat16;
  if (!draws || t.group->draws) return;
  throw TypeError(t.where(k).text() +
                  " has dtype bfloat16, expected float32 as state_dtype says; "
                  "opt.load_state_dict(opt.state_dict()) converts it");
}

}  // namespace

Array PyCall::read_number_of_state(const Given& t, TorchParam& p, std::size_t k, const Where& where, bool on_device,
                                   const py::object& to_device) {
  py::object& value = p.item[k];
  const bool is_step = t.group->has_step && k == t.group->states.size();
  Array a = reader_.read_scalar(value.ptr(), where, !is_step);
  if (on_device && t.device() != kHost && a.device == kHost) {
    value = survive_exit([&] { return to_device(value, p.param); });
    a = reader_.read_scalar(value.ptr(), where, !is_step);
    const py::object& key = p.from->state_keys[k];
    if (t.fresh) {
      new_state_.back().second[key] = value;
    } else {
      moved_.push_back({p.entry, key, value});
    }
  }
  if (a.device == kHost && !on_device) {
    check_writable(a, where);
  } else {
    check_beside(a, where, t);
  }
  return a;
}

// The count on the host is checked and written back; on a device it is neither read nor written here.
void PyCall::add_step(Given& t, TorchParam& p, const py::object& to_device) {
  const Group& group = *t.group;
  const Where where{group.label.c_str(), "step", p.index};
  const bool on_device = group.capturable || counts_on_device();
  const Array a = read_number_of_state(t, p, group.states.size(), where, on_device, to_device);
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
  for (const auto& [group, params, lr, options] : groups) {
    add_group(*group, lr.is_none() ? py::object() : lr);
    if (!args_.stats.is_none() && !args_.part) params_ += static_cast<std::int64_t>(py::len(params));
  }
  if (args_.part) params_ = args_.part->second;
  walk_ = std::make_unique<TorchWalk>(groups, state, args_.part ? args_.part->first : 0);
  given_.reserve(walk_->size());
  call_.counts.reserve(walk_->size());
  walk_->each([&](TorchParam& p) { add_param(p, init, to_device); });
}

// The average of a parameter that has no gradient, which goes on.
void PyCall::add_follower(TorchParam& p, const py::object& init) {
  Given& t = given_.emplace_back();
  t.group = p.from->group;
  t.options = p.from->index;
  t.index = t.row = p.index;
  t.step = kFirst;
  t.follows = true;
  read(t, 0, p.param.ptr());
  t.array[1] = t.array[0];
  make_average(p, init);
  read_average(t, p.item[p.from->average].ptr());
}

// Where it is all that is missing.
void PyCall::make_average(TorchParam& p, const py::object& init) {
  if (!p.from->group->averages || p.item[p.from->average]) return;
  const py::object& key = p.from->state_keys[p.from->average];
  const py::dict made = survive_exit([&] { return init(p.param, *p.from->options, py::make_tuple(key)); });
  p.item[p.from->average] = made[key];
  new_state_.emplace_back(p.param, made);
}

void PyCall::add_param(TorchParam& p, const py::object& init, const py::object& to_device) {
  if (p.grad.is_none()) return add_follower(p, init);
  const Group& group = *p.from->group;
  Given& t = given_.emplace_back();
  t.group = &group;
  t.options = p.from->index;
  t.index = t.row = p.index;
  read(t, 0, p.param.ptr());
  read(t, 1, p.grad.ptr());
  check_rides(t);
  make_state(t, p, init);
  for (int k = 2; k < group.streams(); ++k) {
    read(t, k, p.item[k - 2].ptr());
    check_drawn(t, k);
  }
  if (group.masks && p.item[p.from->required]) read_mask(t, p.item[p.from->required].ptr());
  if (group.averages) read_average(t, p.item[p.from->average].ptr());
  const std::size_t first = group.states.size() + group.has_step;
  for (int k = 0; k < group.scalars(); ++k) {
    const Where at = t.where_number(k);
    t.scalars[k] = read_number_of_state(t, p, first + k, at, true, to_device).scalar();
  }
  if (group.has_step) {
    add_step(t, p, to_device);
  } else {
    t.step = t.fresh ? kFirst : kLater;
  }
  if (group.draws) {
    t.id = id_of(t, p);
    find_place(t, p);
  }
  written_.append(p.param);
}

void PyCall::find_place(Given& t, const TorchParam& p) {
  if (args_.place_of.is_none() || !is_sharded(p.param.ptr())) return;
  const py::object place = survive_exit([&] { return args_.place_of(p.param); });
  if (place.is_none()) return;
  auto [shape, offset] = py::cast<std::pair<std::vector<std::int64_t>, std::vector<std::int64_t>>>(place);
  const auto dims = static_cast<std::size_t>(t.array[0].ndim);
  if (shape.size() != dims || offset.size() != dims) throw py::value_error(t.where().text() + ": a shard of another");
  t.shard = &shards_.emplace_back(Shard{std::move(shape), std::move(offset)});
}

// Where there is none. SGD's buffer may be None or missing (torch writes both); elsewhere a state is whole or not there
// at all.
void PyCall::make_state(Given& t, TorchParam& p, const py::object& init) {
  const Group& group = *p.from->group;
  const auto& keys = p.from->state_keys;
  const std::size_t required = p.from->required;
  // What rides along is no state of the rule, and may be there where this group asks for it no more.
  const auto has_none = [&] {
    return py::len(p.entry) == std::size_t{p.entry.contains("mask")} + p.entry.contains("ema");
  };
  t.fresh = required > 0 && (!p.entry || (!p.item[0] && has_none()));
  if (!group.has_step && required > 0) t.fresh = t.fresh || !p.item[0];
  if (t.fresh) {
    std::vector<py::object> missing(keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(required));
    if (group.averages && !p.item[p.from->average]) missing.push_back(keys[p.from->average]);
    const py::dict made = survive_exit([&] { return init(p.param, *p.from->options, py::tuple(py::cast(missing))); });
    for (std::size_t k = 0; k < keys.size(); ++k) {
      if (made.contains(keys[k])) p.item[k] = made[keys[k]];
    }
    new_state_.emplace_back(p.param, made);
  } else {
    make_average(p, init);
  }
  for (std::size_t k = 0; k < required; ++k) {
    if (p.item[k]) continue;
    const std::string key = py::cast<std::string>(keys[k]);
    throw py::value_error(group.label + ": state of params[" + std::to_string(p.index) + "] has no '" + key +
                          "'; options that add state cannot be switched on later");
  }
}

// Each is noted before it is set, so that whatever fails can be undone.
void PyCall::keep_state() {
  if (has_kept_) return;
  has_kept_ = true;
  for (const auto& [param, fresh] : new_state_) {
    py::object entry = find_item(state_, param);
    if (!entry || py::len(entry) == 0) {
      kept_.push_back({state_, param, entry});
      state_[param] = fresh;
      continue;
    }
    for (const auto& [key, value] : py::cast<py::dict>(fresh)) {
      kept_.push_back({entry, py::reinterpret_borrow<py::object>(key), {}});
      entry[key] = value;
    }
  }
  for (const auto& [entry, key, value] : moved_) {
    kept_.push_back({entry, key, find_item(entry, key)});
    entry[key] = value;
  }
}

void PyCall::take_back() {
  for (const auto& [entry, key, before] : kept_) {
    const int failed =
        before ? PyObject_SetItem(entry.ptr(), key.ptr(), before.ptr()) : PyObject_DelItem(entry.ptr(), key.ptr());
    if (failed) PyErr_Clear();
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
