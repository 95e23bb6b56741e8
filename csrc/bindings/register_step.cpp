
#include "call.h"
#include "register.h"

namespace fusedstep {
namespace {

std::deque<Group> parse(const py::list& groups) {
  std::deque<Group> out;
  for (const py::handle g : groups) out.emplace_back(py::cast<py::dict>(g));
  return out;
}

py::object step_arrays(const py::list& groups, double grad_scale, double norm_type, bool per_tensor,
                       bool error_if_nonfinite) {
  const std::deque<Group> parsed = parse(groups);
  StepCall call(grad_scale, {norm_type, per_tensor, error_if_nonfinite});
  for (const Group& g : parsed) call.add_lists(g);
  return call.run();
}

py::tuple step_torch(const py::list& groups, const py::dict& state, const py::object& init, double grad_scale,
                     bool error_if_nonfinite) {
  const std::deque<Group> parsed = parse(groups);
  StepCall call(grad_scale, {2.0, false, error_if_nonfinite});
  call.add_torch(parsed, state, init);
  py::object norm = call.run();
  return py::make_tuple(norm, call.touched());
}

}  // namespace

void register_step(py::module_& m) {
  m.def("step_arrays", &step_arrays, py::arg("groups"), py::kw_only(), py::arg("grad_scale"), py::arg("norm_type"),
        py::arg("per_tensor"), py::arg("error_if_nonfinite"));
  m.def("step_torch", &step_torch, py::arg("groups"), py::arg("state"), py::arg("init"), py::kw_only(),
        py::arg("grad_scale"), py::arg("error_if_nonfinite"));
}

}  // namespace fusedstep
