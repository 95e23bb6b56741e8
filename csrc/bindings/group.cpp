#include "group.h"

#include <pybind11/stl.h>

#include <array>

#include "register.h"

namespace fusedstep {
namespace {

template <class T>
T field(const py::dict& d, const char* name) {
  PyObject* value = PyDict_GetItemString(d.ptr(), name);
  if (!value) throw py::key_error(name);
  return py::cast<T>(py::handle(value));
}

template <class T>
T field_or(const py::dict& d, const char* name, T otherwise) {
  return d.contains(name) ? field<T>(d, name) : otherwise;
}

std::shared_ptr<const Group> parse(const py::dict& d) {
  return std::make_shared<Group>(make_group(
      field<std::string>(d, "label"), field<std::string>(d, "rule"), field<std::vector<std::string>>(d, "states"),
      field<std::vector<std::string>>(d, "state_args"), field<std::map<std::string, double>>(d, "hyper"),
      field<double>(d, "weight_decay"), field<bool>(d, "decoupled"), field<bool>(d, "maximize"),
      field<std::optional<double>>(d, "max_norm"), field<std::optional<double>>(d, "clip_value"),
      field<bool>(d, "has_step"), field_or<std::string>(d, "takes_sparse", ""), field_or(d, "capturable", false)));
}

// The members of a tuple that starts with a Group.
template <std::size_t kSize>
std::array<py::object, kSize> members(const py::handle& group, const char* expected) {
  const auto tuple = py::isinstance<py::tuple>(group) ? py::cast<py::tuple>(group) : py::tuple();
  if (tuple.size() != kSize || !py::isinstance<Group>(tuple[0])) {
    throw py::type_error(std::string("a group is a ") + Py_TYPE(group.ptr())->tp_name + ", expected " + expected);
  }
  std::array<py::object, kSize> out;
  for (std::size_t k = 0; k < kSize; ++k) out[k] = tuple[k];
  return out;
}

}  // namespace

std::vector<ListsGroup> lists_groups(const py::list& groups) {
  std::vector<ListsGroup> out;
  for (const py::handle group : groups) {
    if (py::isinstance<py::dict>(group)) {
      const auto d = py::cast<py::dict>(group);
      out.push_back({parse(d), d["params"], d["grads"], d["state_arrays"], d["step"],
                     field_or<py::object>(d, "indices", py::none())});
      continue;
    }
    auto m = members<6>(group, "(Group, params, grads, state_arrays, step, indices)");
    out.push_back({py::cast<std::shared_ptr<Group>>(m[0]), m[1], m[2], m[3], m[4], m[5]});
  }
  return out;
}

std::vector<TorchGroup> torch_groups(const py::list& groups) {
  std::vector<TorchGroup> out;
  const auto add = [&out](std::shared_ptr<const Group> group, py::object params, py::object lr, py::object options) {
    TorchGroup& g =
        out.emplace_back(TorchGroup{std::move(group), std::move(params), std::move(lr), std::move(options), {}});
    for (const std::string& key : g.group->states) {
      g.state_keys.push_back(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(key.c_str())));
    }
  };
  for (const py::handle group : groups) {
    if (py::isinstance<py::dict>(group)) {
      const auto d = py::cast<py::dict>(group);
      add(parse(d), d["params"], field_or<py::object>(d, "lr_tensor", py::none()), d);
      continue;
    }
    auto m = members<4>(group, "(Group, params, lr, options)");
    add(py::cast<std::shared_ptr<Group>>(m[0]), m[1], m[2], m[3]);
  }
  return out;
}

void register_group(py::module_& m) {
  py::class_<Group, std::shared_ptr<Group>>(m, "Group")
      .def(py::init(&make_group), py::kw_only(), py::arg("label"), py::arg("rule"), py::arg("states"),
           py::arg("state_args"), py::arg("hyper"), py::arg("weight_decay"), py::arg("decoupled"), py::arg("maximize"),
           py::arg("max_norm"), py::arg("clip_value"), py::arg("has_step"), py::arg("takes_sparse") = "",
           py::arg("capturable") = false);
}

}  // namespace fusedstep
