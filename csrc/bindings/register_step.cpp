
#include "../cpu/threads.h"
#include "call.h"
#include "register.h"

namespace fusedstep {
namespace {

Nonfinite nonfinite_of(const std::string& name) {
  if (name == "skip") return Nonfinite::skip;
  return name == "raise" ? Nonfinite::raise : Nonfinite::propagate;
}

template <class Groups>
std::string label_of(const Groups& groups) {
  return groups.empty() ? "step" : std::get<0>(groups.front())->label;
}

py::object step_arrays(const std::vector<ListsGroup>& groups, const py::object& grad_scale, double norm_type,
                       bool per_tensor, const std::string& nonfinite, const py::object& norm_out,
                       const py::object& stream, const py::object& report) {
  CallArgs args{label_of(groups), norm_type, per_tensor, nonfinite_of(nonfinite)};
  args.grad_scale = grad_scale;
  args.norm_out = norm_out;
  args.stream = stream;
  args.report = report;
  PyCall call(args);
  for (const ListsGroup& g : groups) call.add_lists(g);
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

py::object step_torch(const std::vector<TorchGroup>& groups, const py::object& state, const py::object& init,
                      const py::object& to_device, const py::object& grad_scale, const py::object& found_inf,
                      const py::object& report, const std::string& nonfinite, const py::object& over_ranks,
                      const py::object& before_write) {
  CallArgs args{label_of(groups), 2.0, false, nonfinite_of(nonfinite)};
  args.grad_scale = grad_scale;
  args.found_inf = found_inf;
  args.report = report;
  args.over_ranks = over_ranks;
  args.before_write = before_write;
  PyCall call(args);
  call.add_torch(groups, state, init, to_device);
  return call.run();
}

}  // namespace

void register_step(py::module_& m) {
  py::class_<Group, std::shared_ptr<Group>>(m, "Group")
      .def(py::init(&make_group), py::kw_only(), py::arg("label"), py::arg("rule"), py::arg("states"),
           py::arg("state_args"), py::arg("hyper"), py::arg("weight_decay"), py::arg("decoupled"), py::arg("maximize"),
           py::arg("max_norm"), py::arg("clip_value"), py::arg("has_step"), py::arg("takes_sparse") = "",
           py::arg("capturable") = false, py::arg("rounding") = std::vector<std::string>(), py::arg("seed") = 0,
           py::arg("draws") = false, py::arg("grad_attr") = "grad");
  m.def("step_arrays", &step_arrays, py::call_guard<FloatEnvironment>(), py::arg("groups"), py::kw_only(),
        py::arg("grad_scale"), py::arg("norm_type"), py::arg("per_tensor"), py::arg("nonfinite"),
        py::arg("norm_out") = py::none(), py::arg("stream") = py::none(), py::arg("report") = py::none());
  m.def("check_params", &check_params, py::arg("params"), py::kw_only(), py::arg("label"), py::arg("first"));
  m.def("step_torch", &step_torch, py::call_guard<FloatEnvironment>(), py::arg("groups"), py::arg("state"),
        py::arg("init"), py::arg("to_device"), py::kw_only(), py::arg("grad_scale"), py::arg("found_inf"),
        py::arg("report"), py::arg("nonfinite"), py::arg("over_ranks"), py::arg("before_write"));
}

}  // namespace fusedstep
