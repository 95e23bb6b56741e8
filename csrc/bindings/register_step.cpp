#include <variant>

#include "../cpu/threads.h"
#include "call.h"
#include "register.h"

namespace fusedstep {
namespace {

Nonfinite nonfinite_of(const std::string& name) {
  if (name == "skip") return Nonfinite::skip;
  return name == "raise" ? Nonfinite::raise : Nonfinite::propagate;
}

// Two names of one group, with and without what lies beside its state.
using AnyLists = std::variant<ListsGroup, RidingGroup>;

std::string label_of(const std::vector<AnyLists>& groups) {
  if (groups.empty()) return "step";
  return std::visit([](const auto& group) { return std::get<0>(group)->label; }, groups.front());
}

void add(PyCall& call, const ListsGroup& group) { call.add_lists(group); }
void add(PyCall& call, const RidingGroup& group) {
  const auto& [kept, params, grads, states, step, indices, ids, beside] = group;
  call.add_lists({kept, params, grads, states, step, indices, ids}, beside);
}

py::object step_arrays(const std::vector<AnyLists>& groups, const py::object& grad_scale, double norm_type,
                       bool per_tensor, const std::string& nonfinite, const py::object& norm_out,
                       const py::object& stream, const py::object& report, const py::object& stats) {
  CallArgs args{label_of(groups), norm_type, per_tensor, nonfinite_of(nonfinite)};
  args.stats = stats;
  args.grad_scale = grad_scale;
  args.norm_out = norm_out;
  args.stream = stream;
  args.report = report;
  PyCall call(args);
  for (const AnyLists& g : groups) std::visit([&call](const auto& group) { add(call, group); }, g);
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
                      const py::object& before_write, const py::object& stats, const py::object& place_of,
                      const std::optional<std::pair<std::int64_t, std::int64_t>>& part) {
  CallArgs args{groups.empty() ? "step" : std::get<0>(groups.front())->label, 2.0, false, nonfinite_of(nonfinite)};
  args.stats = stats;
  args.grad_scale = grad_scale;
  args.found_inf = found_inf;
  args.report = report;
  args.over_ranks = over_ranks;
  args.place_of = place_of;
  args.before_write = before_write;
  args.part = part;
  PyCall call(args);
  call.add_torch(groups, state, init, to_device);
  return call.run();
}

}  // namespace

void register_step(py::module_& m) {
  const auto make =
      [](std::string label, const std::string& rule, std::vector<std::string> states,
         std::vector<std::string> state_args, const std::map<std::string, double>& hyper, double weight_decay,
         bool decoupled, bool maximize, std::optional<double> max_norm, std::optional<double> clip_value, bool has_step,
         std::string takes_sparse, bool capturable, const std::vector<std::string>& rounding, std::uint64_t seed,
         bool draws, std::string grad_attr, double l1, const std::string& mask, bool cautious, bool cautious_decay,
         const std::string& decay_mode, double decay_lr, bool ema, bool stats, const std::vector<double>& starts) {
        Group group = make_group(std::move(label), rule, std::move(states), std::move(state_args), hyper, weight_decay,
                                 decoupled, maximize, max_norm, clip_value, has_step, std::move(takes_sparse),
                                 capturable, rounding, seed, draws, std::move(grad_attr));
        add_rides(group, l1, mask, cautious, cautious_decay, decay_mode, decay_lr, ema, stats, starts);
        return group;
      };
  py::class_<Group, std::shared_ptr<Group>>(m, "Group")
      .def(py::init(make), py::kw_only(), py::arg("label"), py::arg("rule"), py::arg("states"), py::arg("state_args"),
           py::arg("hyper"), py::arg("weight_decay"), py::arg("decoupled"), py::arg("maximize"), py::arg("max_norm"),
           py::arg("clip_value"), py::arg("has_step"), py::arg("takes_sparse") = "", py::arg("capturable") = false,
           py::arg("rounding") = std::vector<std::string>(), py::arg("seed") = 0, py::arg("draws") = false,
           py::arg("grad_attr") = "grad", py::arg("l1") = 0.0, py::arg("mask") = "", py::arg("cautious") = false,
           py::arg("cautious_decay") = false, py::arg("decay_mode") = "lr", py::arg("decay_lr") = 0.0,
           py::arg("ema") = false, py::arg("stats") = false, py::arg("starts") = std::vector<double>())
      .def_property(
          "ema_weight", [](const Group& g) { return g.options.host.ride.weight; },
          [](Group& g, double weight) { g.options.host.ride.weight = weight; });
  m.def("step_arrays", &step_arrays, py::call_guard<FloatEnvironment>(), py::arg("groups"), py::kw_only(),
        py::arg("grad_scale"), py::arg("norm_type"), py::arg("per_tensor"), py::arg("nonfinite"),
        py::arg("norm_out") = py::none(), py::arg("stream") = py::none(), py::arg("report") = py::none(),
        py::arg("stats") = py::none());
  m.def("check_params", &check_params, py::arg("params"), py::kw_only(), py::arg("label"), py::arg("first"));
  m.def("step_torch", &step_torch, py::call_guard<FloatEnvironment>(), py::arg("groups"), py::arg("state"),
        py::arg("init"), py::arg("to_device"), py::kw_only(), py::arg("grad_scale"), py::arg("found_inf"),
        py::arg("report"), py::arg("nonfinite"), py::arg("over_ranks"), py::arg("before_write"),
        py::arg("stats") = py::none(), py::arg("place_of") = py::none(), py::arg("part") = py::none());
}

}  // namespace fusedstep
