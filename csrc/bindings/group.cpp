#include "group.h"

#include <pybind11/stl.h>

#include <limits>

#include "../kernels/registry.h"

namespace fusedstep {
namespace {

py::object field(const py::dict& d, const char* name) {
  PyObject* value = PyDict_GetItemString(d.ptr(), name);
  if (!value) throw py::key_error(name);
  return py::reinterpret_borrow<py::object>(value);
}

template <class T>
T field(const py::dict& d, const char* name) {
  return py::cast<T>(field(d, name));
}

py::object field_or_none(const py::dict& d, const char* name) { return d.contains(name) ? field(d, name) : py::none(); }

double number_or(const py::object& value, double if_none) {
  return value.is_none() ? if_none : py::cast<double>(value);
}

std::shared_ptr<const Group> parse(const py::dict& d) {
  auto g = std::make_shared<Group>();
  g->label = field<std::string>(d, "label");
  const auto states = field<std::vector<std::string>>(d, "states");
  const auto name = field<std::string>(d, "rule");
  g->rule = find_rule(name, states);
  if (g->rule < 0) throw py::value_error("no rule '" + name + "' with these state arrays");
  g->args = {"params", "grads"};
  for (auto& arg : field<std::vector<std::string>>(d, "state_args")) g->args.push_back(std::move(arg));
  const py::dict values = field<py::dict>(d, "hyper");
  const std::vector<std::string>& hyper = all_rules()[g->rule].hyper;
  StepOptions& options = g->options.host;
  for (std::size_t k = 0; k < hyper.size(); ++k) options.hyper[k] = field<double>(values, hyper[k].c_str());
  options.weight_decay = field<double>(d, "weight_decay");
  options.decoupled = field<bool>(d, "decoupled");
  options.maximize = field<bool>(d, "maximize");
  options.max_norm = number_or(field(d, "max_norm"), -1.0);
  options.clip_value = number_or(field(d, "clip_value"), std::numeric_limits<double>::infinity());
  g->has_step = field<bool>(d, "has_step");
  g->arrays = static_cast<int>(states.size());
  const auto add_key = [&g](const std::string& key) {
    g->state_keys.push_back(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(key.c_str())));
  };
  for (const auto& key : states) add_key(key);
  if (g->has_step) add_key("step");
  for (const auto& key : all_rules()[g->rule].scalars) add_key(key);
  g->capturable = d.contains("capturable") && field<bool>(d, "capturable");
  if (d.contains("takes_sparse")) g->takes_sparse = field<std::string>(d, "takes_sparse");
  return g;
}

}  // namespace

std::vector<ListsGroup> lists_groups(const py::list& groups) {
  std::vector<ListsGroup> out;
  for (const py::handle group : groups) {
    const auto d = py::cast<py::dict>(group);
    out.push_back({parse(d), field(d, "params"), field(d, "grads"), field(d, "state_arrays"), field(d, "step"),
                   field_or_none(d, "indices")});
  }
  return out;
}

std::vector<TorchGroup> torch_groups(const py::list& groups) {
  std::vector<TorchGroup> out;
  for (const py::handle group : groups) {
    const auto d = py::cast<py::dict>(group);
    out.push_back({parse(d), field(d, "params"), field_or_none(d, "lr_tensor"), d});
  }
  return out;
}

}  // namespace fusedstep
