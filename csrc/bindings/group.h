// Groups of parameters as Python hands them over (_core.pyi: Group).
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <string>
#include <vector>

#include "../call/options.h"

namespace fusedstep {

namespace py = pybind11;

struct Group {
  std::string label;
  int rule;
  std::vector<std::string> args;       // names in messages: parameter, gradient, state arrays, scalar states
  std::vector<py::object> state_keys;  // in a torch state dict, interned: arrays, "step" if it has one, scalar states
  int arrays = 0;                      // state arrays
  Options options{};                   // but for what the call adds: grad_scale, an lr on a device
  bool has_step = false;               // a torch state dict has a "step"
  bool capturable = false;
  std::string takes_sparse = {};  // the class that does, for messages
};

// A group of one call: of arrays in lists, or of a torch optimizer.
struct ListsGroup {
  std::shared_ptr<const Group> group;
  py::object params, grads, state_arrays, step, indices;
};
struct TorchGroup {
  std::shared_ptr<const Group> group;
  py::object params, lr, options;  // lr: a tensor, perhaps on a device, or None; options: what makes state is given
};

std::vector<ListsGroup> lists_groups(const py::list& groups);
std::vector<TorchGroup> torch_groups(const py::list& groups);

}  // namespace fusedstep
