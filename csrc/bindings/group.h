// Groups of parameters as Python hands them over (_core.pyi).
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "../call/group.h"

namespace fusedstep {

namespace py = pybind11;

// A group of one call: of arrays in lists, or of a torch optimizer.
struct ListsGroup {
  std::shared_ptr<const Group> group;
  py::object params, grads, state_arrays, step, indices;  // indices: of the parameters, for messages, or None
};
struct TorchGroup {
  std::shared_ptr<const Group> group;
  py::object params, lr, options;      // lr: a tensor, perhaps on a device, or None; options: what makes state is given
  std::vector<py::object> state_keys;  // the group's `states`, interned
};

std::vector<ListsGroup> lists_groups(const py::list& groups);
std::vector<TorchGroup> torch_groups(const py::list& groups);

}  // namespace fusedstep
