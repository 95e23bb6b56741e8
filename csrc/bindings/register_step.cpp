
#include "../cpu/threads.h"
#include "call.h"
#include "register.h"

namespace fusedstep {
namespace {

std::deque<Group> parse(const py::list& groups) {
  std::deque<Group> out;
  for (const py::handle g : groups) out.emplace_back(py::cast<py::dict>(g));
  return out;
}

py::object step_arrays(const py::list& groups, const py::object& grad_scale, double norm_type, bool per_tensor,
                       bool error_if_nonfinite, const py::object& norm_out, const py::object& stream) {
  const std::deque<Group> parsed = parse(groups);
  const char* const label = parsed.empty() ? "step" : parsed.front().label.c_str();
  StepCall call({label, grad_scale, py::none(), norm_out, stream, {norm_type, per_tensor, error_if_nonfinite}});
  for (const Group& g : parsed) call.add_lists(g);
  return call.run();
}

// Shape and dtype of each parameter, or the error that a step would raise.
py::list check_params(const py::list& params, const std::string& label, std::int64_t first) {
  Reader reader;
  py::list out;
  for (const py::handle object : params) {
    const Where where{label.c_str(), "params", first++};
    const Array a = reader.read(object.ptr(), where);
    check_writable(a, where);
    out.append(
        py::make_tuple(py::tuple(py::cast(std::vector<std::int64_t>(a.shape, a.shape + a.ndim))), a.dtype_text()));
  }
  return out;
}

py::tuple step_torch(const py::list& groups, const py::dict& state, const py::object& init, const py::object& to_device,
                     const py::object& grad_scale, const py::object& found_inf, const py::object& norm_out,
                     bool error_if_nonfinite) {
  const std::deque<Group> parsed = parse(groups);
  const char* const label = parsed.empty() ? "step" : parsed.front().label.c_str();
  StepCall call({label, grad_scale, found_inf, norm_out, py::none(), {2.0, false, error_if_nonfinite}});
  if (call.skips()) return py::make_tuple(py::none(), py::list());
  call.add_torch(parsed, state, init, to_device);
  py::object norm = call.run();
  return py::make_tuple(norm, call.touched());
}

}  // namespace

void register_step(py::module_& m) {
  m.def("step_arrays", &step_arrays, py::call_guard<FloatEnvironment>(), py::arg("groups"), py::kw_only(),
        py::arg("grad_scale"), py::arg("norm_type"), py::arg("per_tensor"), py::arg("error_if_nonfinite"),
        py::arg("norm_out") = py::none(), py::arg("stream") = py::none());
  m.def("check_params", &check_params, py::arg("params"), py::kw_only(), py::arg("label"), py::arg("first"));
  m.def("step_torch", &step_torch, py::call_guard<FloatEnvironment>(), py::arg("groups"), py::arg("state"),
        py::arg("init"), py::arg("to_device"), py::kw_only(), py::arg("grad_scale"), py::arg("found_inf"),
        py::arg("norm_out") = py::none(), py::arg("error_if_nonfinite"));
}

}  // namespace fusedstep
