// Norms, and clipping in place: a norm pass, then the rule "clip" with the gradient as its own parameter.

#include <limits>

#include "../cpu/threads.h"
#include "call.h"
#include "register.h"

namespace fusedstep {
namespace {

struct Gradients {
  std::deque<Array> arrays;
  std::deque<Strided> strided;

  Gradients(Reader& reader, const py::list& objects, const char* label, const char* arg, bool written) {
    AliasCheck alias;
    for (const py::handle object : objects) {
      const Where where{label, arg, static_cast<std::int64_t>(arrays.size())};
      const Array& a = arrays.emplace_back(reader.read(object.ptr(), where));
      if (!written) continue;
      check_writable(a, where);
      alias.add(a, true, where);
    }
    alias.verify();
  }

  Norms norms(double norm_type) {
    std::vector<NormWork> work;
    for (const Array& a : arrays) {
      work.push_back({a.data, a.dtype, a.is_complex, a.numel, common_layout(&a, 1, true, strided)});
    }
    const py::gil_scoped_release release;
    return run_norm(work, norm_type);
  }

  // g <- clamp(coefficient * g); a coefficient of one without a bound leaves every bit, and is not run.
  void scale(const std::vector<double>& coefficient, double clip_value) {
    static const int rule = find_rule("clip", {});
    std::deque<UniformBytes> uniforms;
    std::vector<StepWork> work;
    std::vector<std::int64_t> numels;
    for (std::size_t i = 0; i < arrays.size(); ++i) {
      const Array& a = arrays[i];
      if (coefficient[i] == 1.0 && clip_value == std::numeric_limits<double>::infinity()) continue;
      all_rules()[rule].prepare(a.dtype, {coefficient[i], clip_value, 0.0, 1.0}, nullptr, 1,
                                uniforms.emplace_back().bytes);
      const Array both[] = {a, a};
      numels.push_back(a.numel * (a.is_complex ? 2 : 1));
      work.push_back({{a.data, a.data},
                      2,
                      a.dtype,
                      rule,
                      numels.back(),
                      uniforms.back().bytes,
                      common_layout(both, 2, false, strided)});
    }
    const py::gil_scoped_release release;
    run_step(work, Plan(numels), true);
  }
};

py::object result(const Norms& n, bool per_tensor) { return per_tensor ? py::cast(n.each) : py::cast(n.total); }

py::object norm(const py::list& arrays, const std::string& label, const std::string& arg, double norm_type,
                bool per_tensor, bool error_if_nonfinite) {
  Reader reader;
  Gradients g(reader, arrays, label.c_str(), arg.c_str(), false);
  const Norms n = g.norms(norm_type);
  check_finite(n, {norm_type, per_tensor, error_if_nonfinite}, label.c_str());
  return result(n, per_tensor);
}

py::object clip_norm(const py::list& grads, const std::string& label, double max_norm, double norm_type,
                     bool per_tensor, bool error_if_nonfinite, const std::optional<double>& total_norm) {
  Reader reader;
  Gradients g(reader, grads, label.c_str(), "grads", true);
  Norms n{{}, total_norm.value_or(0.0)};
  if (!total_norm) {
    n = g.norms(norm_type);
    check_finite(n, {norm_type, per_tensor, error_if_nonfinite}, label.c_str());
  }
  std::vector<double> coefficient;
  for (std::size_t i = 0; i < g.arrays.size(); ++i) {
    coefficient.push_back(clip_coefficient(per_tensor ? n.each[i] : n.total, max_norm));
  }
  g.scale(coefficient, std::numeric_limits<double>::infinity());
  return result(n, per_tensor);
}

void clip_value(const py::list& grads, const std::string& label, double value) {
  Reader reader;
  Gradients g(reader, grads, label.c_str(), "grads", true);
  for (std::size_t i = 0; i < g.arrays.size(); ++i) {
    check_ordered(g.arrays[i], {label.c_str(), "grads", static_cast<std::int64_t>(i)});
  }
  g.scale(std::vector<double>(g.arrays.size(), 1.0), value);
}

}  // namespace

void register_clip(py::module_& m) {
  m.def("norm", &norm, py::call_guard<FloatEnvironment>(), py::arg("arrays"), py::kw_only(), py::arg("label"),
        py::arg("arg"), py::arg("norm_type"), py::arg("per_tensor"), py::arg("error_if_nonfinite"));
  m.def("clip_norm", &clip_norm, py::call_guard<FloatEnvironment>(), py::arg("grads"), py::kw_only(), py::arg("label"),
        py::arg("max_norm"), py::arg("norm_type"), py::arg("per_tensor"), py::arg("error_if_nonfinite"),
        py::arg("total_norm"));
  m.def("clip_value", &clip_value, py::call_guard<FloatEnvironment>(), py::arg("grads"), py::kw_only(),
        py::arg("label"), py::arg("value"));
}

}  // namespace fusedstep
