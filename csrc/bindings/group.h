// Groups of parameters as Python hands them over (_core.pyi).
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "../call/group.h"

namespace fusedstep {

namespace py = pybind11;

struct PyGroup : Group {
  explicit PyGroup(Group group);
  std::vector<py::object> state_keys;  // in a torch state dict, interned: arrays, "step" if it has one, other numbers
};

// A group of one call: of arrays in lists, or of a torch optimizer.
struct ListsGroup {
  std::shared_ptr<const PyGroup> group;
  py::object params, grads, state_arrays, step, indices;  // indices: of the parameters, for messages, or None
};
struct TorchGroup {
  std::shared_ptr<const PyGroup> group;
  py::object params, lr, options;  // lr: a tensor, perhaps on a device, or None; options: what makes state is given
};

std::vector<ListsGroup> lists_groups(const py::list& groups);
std::vector<TorchGroup> torch_groups(const py::list& groups);

}  // namespace fusedstep
