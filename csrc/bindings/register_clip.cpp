// Norms, and clipping in place: the rule "clip" with the gradient as its own parameter.

#include <limits>

#include "../cpu/threads.h"
#include "../cuda/run.h"
#include "call.h"
#include "register.h"

namespace fusedstep {
namespace {

Nonfinite raises(bool error_if_nonfinite) { return error_if_nonfinite ? Nonfinite::raise : Nonfinite::propagate; }

py::object run(const CallArgs& args, const py::list& arrays, const Group& group, Phases phases,
               const py::object& total_norm = py::none()) {
  PyCall call(args);
  call.add_gradients(arrays, group, phases, total_norm);
  return call.run();
}

py::object norm(const py::list& arrays, const std::string& label, const std::string& arg, double norm_type,
                bool per_tensor, bool error_if_nonfinite, const py::object& norm_out, const py::object& stream,
                const py::object& over_ranks) {
  CallArgs args{label, norm_type, per_tensor, raises(error_if_nonfinite)};
  args.norm_out = norm_out;
  args.stream = stream;
  args.over_ranks = over_ranks;
  return run(args, arrays, clip_group(label, arg, std::numeric_limits<double>::infinity(), {}), kMeasure | kFold);
}

py::object clip_norm(const py::list& grads, const std::string& label, double max_norm, double norm_type,
                     bool per_tensor, bool error_if_nonfinite, const py::object& total_norm, const py::object& norm_out,
                     const py::object& stream, const py::object& over_ranks, const py::object& before_write) {
  const bool given = !total_norm.is_none();
  CallArgs args{label, norm_type, per_tensor && !given, raises(error_if_nonfinite && !given)};
  args.norm_out = norm_out;
  args.stream = stream;
  args.over_ranks = over_ranks;
  args.before_write = before_write;
  const Phases phases = kFold | kPrepare | kApply;
  return run(args, grads, clip_group(label, "grads", max_norm, {}), given ? phases : phases | kMeasure, total_norm);
}

void clip_value(const py::list& grads, const std::string& label, double value, const py::object& stream,
                const py::object& before_write) {
  CallArgs args{label};
  args.stream = stream;
  args.before_write = before_write;
  run(args, grads, clip_group(label, "grads", {}, value), kPrepare | kApply);
}

// On a device. rows: ranks x len(out).
void sum_ranks(const py::object& rows, const py::object& out, double norm_type) {
  Reader reader;
  const Where where{"add_ranks", "rows", 0}, where_out{"add_ranks", "out", 0};
  const Array from = reader.read(rows.ptr(), where), to = reader.read(out.ptr(), where_out);
  check_writable(to, where_out);
  check_device(from.device, where.text(), to.device, " to match out");
  const bool fits = to.numel > 0 && from.numel % to.numel == 0 && from.format == Format::float64 &&
                    to.format == Format::float64 && from.contiguous && to.contiguous;
  if (!fits || to.device == kHost) {
    throw py::value_error(where.text() + " and out are no contiguous float64 of ranks x n and n on a CUDA device");
  }
  cuda::add_ranks(static_cast<const double*>(from.data), static_cast<std::uint32_t>(from.numel / to.numel),
                  static_cast<std::uint32_t>(to.numel), static_cast<double*>(to.data), norm_type, to.device,
                  reader.streams().front().second);
}

}  // namespace

void register_clip(py::module_& m) {
  m.def("norm", &norm, py::call_guard<FloatEnvironment>(), py::arg("arrays"), py::kw_only(), py::arg("label"),
        py::arg("arg"), py::arg("norm_type"), py::arg("per_tensor"), py::arg("error_if_nonfinite"),
        py::arg("norm_out") = py::none(), py::arg("stream") = py::none(), py::arg("over_ranks") = py::none());
  m.def("clip_norm", &clip_norm, py::call_guard<FloatEnvironment>(), py::arg("grads"), py::kw_only(), py::arg("label"),
        py::arg("max_norm"), py::arg("norm_type"), py::arg("per_tensor"), py::arg("error_if_nonfinite"),
        py::arg("total_norm"), py::arg("norm_out") = py::none(), py::arg("stream") = py::none(),
        py::arg("over_ranks") = py::none(), py::arg("before_write") = py::none());
  m.def("add_ranks", &sum_ranks, py::arg("rows"), py::arg("out"), py::kw_only(), py::arg("norm_type"));
  m.def("clip_value", &clip_value, py::call_guard<FloatEnvironment>(), py::arg("grads"), py::kw_only(),
        py::arg("label"), py::arg("value"), py::arg("stream") = py::none(), py::arg("before_write") = py::none());
}

}  // namespace fusedstep
