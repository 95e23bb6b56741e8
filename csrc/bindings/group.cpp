#include "group.h"

#include <pybind11/stl.h>

#include <array>

#include "../kernels/registry.h"
#include "register.h"

namespace fusedstep {
namespace {

// The members of a tuple that starts with a Group.
template <std::size_t kSize>
std::array<py::object, kSize> members(const py::handle& group, const char* expected) {
  const auto tuple = py::isinstance<py::tuple>(group) ? py::cast<py::tuple>(group) : py::tuple();
  if (tuple.size() != kSize || !py::isinstance<PyGroup>(tuple[0])) {
    throw py::type_error(std::string("a group is a ") + Py_TYPE(group.ptr())->tp_name + ", expected " + expected);
  }
  std::array<py::object, kSize> out;
  for (std::size_t k = 0; k < kSize; ++k) out[k] = tuple[k];
  return out;
}

}  // namespace

PyGroup::PyGroup(Group group) : Group(std::move(group)) {
  const auto add = [this](const std::string& key) {
    state_keys.push_back(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(key.c_str())));
  };
  for (const std::string& key : states) add(key);
  if (has_step) add("step");
  for (const std::string& key : all_rules()[rule].scalars) add(key);
}

std::vector<ListsGroup> lists_groups(const py::list& groups) {
  std::vector<ListsGroup> out;
  for (const py::handle group : groups) {
    auto m = members<6>(group, "(Group, params, grads, state_arrays, step, indices)");
    out.push_back({py::cast<std::shared_ptr<PyGroup>>(m[0]), m[1], m[2], m[3], m[4], m[5]});
  }
  return out;
}

std::vector<TorchGroup> torch_groups(const py::list& groups) {
  std::vector<TorchGroup> out;
  for (const py::handle group : groups) {
    auto m = members<4>(group, "(Group, params, lr, options)");
    out.push_back({py::cast<std::shared_ptr<PyGroup>>(m[0]), m[1], m[2], m[3]});
  }
  return out;
}

void register_group(py::module_& m) {
  py::class_<PyGroup, std::shared_ptr<PyGroup>>(m, "Group")
      .def(py::init([](std::string label, const std::string& rule, std::vector<std::string> states,
                       std::vector<std::string> state_args, const std::map<std::string, double>& hyper,
                       double weight_decay, bool decoupled, bool maximize, std::optional<double> max_norm,
                       std::optional<double> clip_value, bool has_step, std::string takes_sparse, bool capturable) {
             return PyGroup(make_group(std::move(label), rule, std::move(states), std::move(state_args), hyper,
                                       weight_decay, decoupled, maximize, max_norm, clip_value, has_step,
                                       std::move(takes_sparse), capturable));
           }),
           py::kw_only(), py::arg("label"), py::arg("rule"), py::arg("states"), py::arg("state_args"), py::arg("hyper"),
           py::arg("weight_decay"), py::arg("decoupled"), py::arg("maximize"), py::arg("max_norm"),
           py::arg("clip_value"), py::arg("has_step"), py::arg("takes_sparse") = "", py::arg("capturable") = false);
}

}  // namespace fusedstep
