// Norms, and clipping in place: a norm pass, then the rule "clip" with the gradient as its own parameter.

#include <limits>

#include "../cpu/threads.h"
#include "call.h"
#include "register.h"

namespace fusedstep {
namespace {

class Gradients {
 public:
  // `before_write`: see announce(); not an object: nothing is written.
  Gradients(const py::list& objects, const char* label, const char* arg, const py::object& stream,
            const py::object& before_write = py::object())
      : label_(label), arg_(arg), objects_(objects), before_write_(before_write) {
    const bool written = static_cast<bool>(before_write);
    reader_.use_stream(stream);
    AliasCheck alias;
    for (const py::handle object : objects) {
      const Where at = where(arrays_.size());
      // Norms and clipping do not look at signs, and treat both parts of a complex number alike.
      const Array& a = arrays_.emplace_back(reader_.read(object.ptr(), at, Lazy::as_stored));
      check_one_kind(a, at, arrays_.front());
      if (!written) continue;
      check_writable(a, at);
      alias.add(a, true, at);
    }
    alias.verify();
  }

  Where where(std::size_t i) const { return {label_, arg_, static_cast<std::int64_t>(i)}; }
  bool on_cuda() const { return !arrays_.empty() && arrays_.front().device != kHost; }

  Norms norms(const Clipping& clipping) {
    std::vector<NormWork> work;
    for (const Array& a : arrays_) {
      work.push_back({a.data, a.format, a.is_complex, a.numel, common_layout(&a, 1, true, strided_)});
    }
    Norms found = norms_of(work, clipping);
    check_finite(found, clipping, label_);
    return found;
  }

  // g <- clamp(coefficient * g) with the coefficient of each norm; one of 1 without a bound leaves every bit, and is
  // not run.
  void scale(const Norms& norms, bool per_tensor, const StepOptions& options) {
    static const int rule = find_rule("clip", {});
    std::deque<UniformBytes> uniforms;
    std::vector<StepWork> work;
    std::vector<std::int64_t> numels;
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      const double norm = per_tensor ? norms.each[i] : norms.total;
      if (options.clip_value == kInf && prepare_common(options, norm).grad_mul == 1.0) continue;
      prepare(rule, compute_type(arrays_[i].format), options, norm, 1, uniforms.emplace_back().bytes);
      work.push_back(work_of(i, rule));
      work.back().uniform = uniforms.back().bytes;
      numels.push_back(work.back().numel);
    }
    const Plan plan(numels);
    announce(before_write_, objects_);
    without_lock([&] { run_step(work, plan, true); });
  }

  // Norm and scaling on CUDA devices, as one call. The norm(s) come back if the caller has no norm_out for them.
  py::object run_cuda(const Clipping& clipping, const StepOptions* options, bool has_norm, const py::object& norm_out,
                      const py::object& given_norm) {
    static const int rule = find_rule("clip", {});
    cuda::Call call;
    call.options.push_back({options ? *options : StepOptions{}, {}});
    call.options.back().host.grad_scale = 1.0;
    call.steps = options != nullptr;
    call.has_norm = has_norm;
    call.per_tensor = clipping.per_tensor;
    if (has_norm) call.norm = cuda_norm(clipping.norm_type, label_);
    for (std::size_t i = 0; i < arrays_.size(); ++i) {
      if (has_norm) check_norm_kind(arrays_[i], where(i), call.norm);
      const Strided* const row_major = has_norm ? common_layout(&arrays_[i], 1, true, strided_) : nullptr;
      call.work.push_back({work_of(i, rule), row_major, has_norm, arrays_[i].device, 0, 1, {}});
    }
    set_norm_out(call, clipping.per_tensor, reader_, norm_out, {label_, "norm_out", 0});
    if (!given_norm.is_none()) {
      const Where at{label_, "total_norm", 0};
      const Number norm = read_number(reader_, given_norm.ptr(), at);
      if (norm.device == kHost) throw py::value_error(at.text() + " is on device cpu, expected that of the gradients");
      call.given_norm = norm.at;
      call.scalar_device = norm.device;
    }
    call.streams = reader_.streams();
    if (const char* why = capture_obstacle(call, clipping)) {
      throw std::runtime_error(std::string(label_) + ": cannot be part of a CUDA graph: " + why);
    }
    const bool waits = waits_for_norm(call, clipping);
    return run_cuda_call(std::move(call), clipping, waits, [&](const Norms* norms) {
      if (norms) check_finite(*norms, clipping, label_);
      if (options) announce(before_write_, objects_);
    });
  }

  void check_all_ordered() const {
    for (std::size_t i = 0; i < arrays_.size(); ++i) check_ordered(arrays_[i], where(i));
  }

  static constexpr double kInf = std::numeric_limits<double>::infinity();

 private:
  StepWork work_of(std::size_t i, int rule) {
    const Array& a = arrays_[i];
    const Array both[] = {a, a};
    const std::int64_t numel = a.numel * (a.is_complex ? 2 : 1);
    const Stream g{a.data, a.format};
    return {{g, g}, 2, compute_type(a.format), rule, numel, nullptr, common_layout(both, 2, false, strided_)};
  }

  const char* label_;
  const char* arg_;
  const py::list objects_;
  const py::object before_write_;
  Reader reader_;
  std::deque<Array> arrays_;
  std::deque<Strided> strided_;
};

// Options of the rule "clip": a bound on the norm, or none, and on each element.
StepOptions clip_options(double max_norm, double value) {
  StepOptions o{};
  o.max_norm = max_norm;
  o.clip_value = value;
  o.grad_scale = 1.0;
  return o;
}

Nonfinite raises(bool error_if_nonfinite) { return error_if_nonfinite ? Nonfinite::raise : Nonfinite::propagate; }

py::object result(const Norms& n, bool per_tensor) { return per_tensor ? py::cast(n.each) : py::cast(n.total); }

py::object norm(const py::list& arrays, const std::string& label, const std::string& arg, double norm_type,
                bool per_tensor, bool error_if_nonfinite, const py::object& norm_out, const py::object& stream,
                const py::object& over_ranks) {
  Gradients g(arrays, label.c_str(), arg.c_str(), stream);
  const Clipping clipping{norm_type, per_tensor, raises(error_if_nonfinite), over_ranks};
  if (g.on_cuda()) return g.run_cuda(clipping, nullptr, true, norm_out, py::none());
  return result(g.norms(clipping), per_tensor);
}

py::object clip_norm(const py::list& grads, const std::string& label, double max_norm, double norm_type,
                     bool per_tensor, bool error_if_nonfinite, const py::object& total_norm, const py::object& norm_out,
                     const py::object& stream, const py::object& over_ranks, const py::object& before_write) {
  Gradients g(grads, label.c_str(), "grads", stream, before_write);
  const Clipping clipping{norm_type, per_tensor, raises(error_if_nonfinite), over_ranks};
  const StepOptions options = clip_options(max_norm, Gradients::kInf);
  const bool has_norm = total_norm.is_none();
  if (g.on_cuda()) return g.run_cuda(clipping, &options, has_norm, norm_out, total_norm);
  const Norms n = has_norm ? g.norms(clipping) : Norms{{}, py::cast<double>(py::float_(total_norm))};
  g.scale(n, per_tensor, options);
  return result(n, per_tensor);
}

void clip_value(const py::list& grads, const std::string& label, double value, const py::object& stream,
                const py::object& before_write) {
  Gradients g(grads, label.c_str(), "grads", stream, before_write);
  g.check_all_ordered();
  const StepOptions options = clip_options(-1.0, value);
  if (g.on_cuda()) {
    g.run_cuda({}, &options, false, py::none(), py::none());
  } else {
    g.scale({}, false, options);
  }
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
  m.def("clip_value", &clip_value, py::call_guard<FloatEnvironment>(), py::arg("grads"), py::kw_only(),
        py::arg("label"), py::arg("value"), py::arg("stream") = py::none(), py::arg("before_write") = py::none());
}

}  // namespace fusedstep
