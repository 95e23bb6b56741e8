#include "call.h"

#include <cmath>
#include <limits>

#include "torch_walk.h"

namespace fusedstep {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

py::object field(const py::dict& d, const char* name) {
  PyObject* value = PyDict_GetItemString(d.ptr(), name);
  if (!value) throw py::key_error(name);
  return py::reinterpret_borrow<py::object>(value);
}

template <class T>
T field(const py::dict& d, const char* name) {
  return py::cast<T>(field(d, name));
}

double number_or(const py::dict& d, const char* name, double if_none) {
  const py::object value = field(d, name);
  return value.is_none() ? if_none : py::cast<double>(value);
}

py::list sequence(const py::dict& source, const char* name) { return py::list(field(source, name)); }

}  // namespace

void check_finite(const Norms& norms, const Clipping& clipping, const char* label) {
  if (clipping.nonfinite != Nonfinite::raise) return;
  const auto fail = [label](const std::string& which, double norm) {
    throw std::runtime_error(std::string(label) + ": " + which + " is non-finite (" + std::to_string(norm) +
                             "); nothing was changed. error_if_nonfinite=False (nonfinite='propagate') lets it pass");
  };
  if (!clipping.per_tensor) {
    if (!std::isfinite(norms.total)) fail("the total norm", norms.total);
    return;
  }
  for (std::size_t t = 0; t < norms.each.size(); ++t) {
    if (!std::isfinite(norms.each[t])) fail("the norm of array " + std::to_string(t), norms.each[t]);
  }
}

std::vector<double> sums_of_ranks(const std::vector<double>& sums, const Clipping& clipping) {
  if (clipping.over_ranks.is_none()) return sums;
  const py::object all = survive_exit([&] { return clipping.over_ranks(sums); });
  return add_ranks(py::cast<std::vector<std::vector<double>>>(all), clipping.norm_type);
}

Norms norms_of(const std::vector<NormWork>& work, const Clipping& clipping) {
  std::vector<double> sums;
  without_lock([&] { sums = run_sums(work, clipping.norm_type); });
  return fold_sums(sums_of_ranks(sums, clipping), clipping.norm_type);
}

void announce(const py::object& before_write, const py::list& written) {
  if (!before_write.is_none()) survive_exit([&] { before_write(written); });
}

Group::Group(py::dict group) : source(std::move(group)) {
  label = field<std::string>(source, "label");
  const auto states = field<std::vector<std::string>>(source, "states");
  const auto name = field<std::string>(source, "rule");
  rule = find_rule(name, states);
  if (rule < 0) throw py::value_error("no rule '" + name + "' with these state arrays");
  state_args = field<std::vector<std::string>>(source, "state_args");
  for (const auto& key : states) {
    state_keys.push_back(py::reinterpret_steal<py::object>(PyUnicode_InternFromString(key.c_str())));
  }
  const py::dict values = field<py::dict>(source, "hyper");
  const RuleInfo& info = all_rules()[rule];
  for (std::size_t k = 0; k < info.hyper.size(); ++k) {
    options.hyper[k] = field<double>(values, info.hyper[k].c_str());
  }
  options.weight_decay = field<double>(source, "weight_decay");
  options.decoupled = field<bool>(source, "decoupled");
  options.maximize = field<bool>(source, "maximize");
  options.max_norm = number_or(source, "max_norm", -1.0);
  options.clip_value = number_or(source, "clip_value", kInf);
  has_step = field<bool>(source, "has_step");
  capturable = source.contains("capturable") && field<bool>(source, "capturable");
  if (source.contains("lr_tensor")) lr = field(source, "lr_tensor");
  if (source.contains("takes_sparse")) takes_sparse = field<std::string>(source, "takes_sparse");
}

Where StepCall::where(const Tensor& t, int k) const {
  const Group& g = *t.group;
  const char* const arg = k == 0 ? "params" : k == 1 ? "grads" : g.state_args[k - 2].c_str();
  return {g.label.c_str(), arg, t.index, g.takes_sparse.c_str()};
}

void StepCall::read(Tensor& t, int k, PyObject* object) {
  const Where at = where(t, k);
  const Array& a = t.array[k] = reader_.read(object, at, k == 1 ? Lazy::resolve : Lazy::refuse);
  if (k > 0) check_matches(a, at, t.array[0]);
  if (k != 1) check_writable(a, at);
  if (t.group->options.clip_value < kInf) check_ordered(a, at);
  if (k == 0) check_one_kind(a, at, tensors_.front().array[0]);
}

StepCall::StepCall(const CallOptions& o)
    : clipping_(o.clipping),
      grad_scale_(read_number(reader_, o.grad_scale.ptr(), {o.label, "grad_scale", 0})),
      found_inf_(o.found_inf.is_none() ? Number{} : read_number(reader_, o.found_inf.ptr(), {o.label, "found_inf", 0})),
      norm_out_(o.norm_out),
      before_write_(o.before_write) {
  reader_.use_stream(o.stream);
  if (!o.report.is_none()) read_report(o.report);
}

StepCall::~StepCall() = default;

void StepCall::read_report(const py::object& report) {
  const Array a = reader_.read(report.ptr(), {"report", "report", 0});
  if (a.numel != 4 || a.format != Format::float64 || a.is_complex || !a.contiguous) {
    throw py::value_error("report has dtype " + a.dtype_text() + " and shape " + a.shape_text() +
                          ", expected 4 float64");
  }
  report_ = static_cast<double*>(a.data);
  report_device_ = a.device;
}

// A coefficient falls with its max_norm, so that the least one gives the smallest.
void StepCall::add_limit(const Group& group) {
  const double limit = group.options.max_norm;
  if (limit >= 0.0 && (!clips() || limit < least_max_norm_)) least_max_norm_ = limit;
}

void StepCall::add_lists(const Group& group) {
  const std::string& label = group.label;
  std::vector<py::list> lists{sequence(group.source, "params"), sequence(group.source, "grads")};
  for (const py::handle states : sequence(group.source, "state_arrays")) {
    lists.emplace_back(py::reinterpret_borrow<py::object>(states));
  }
  if (lists.size() != 2 + group.state_args.size()) throw py::value_error(label + ": not one list per state array");
  for (std::size_t k = 1; k < lists.size(); ++k) {
    if (lists[k].size() != lists[0].size()) {
      throw py::value_error(label + ": " + (k == 1 ? "grads" : group.state_args[k - 2]) + " has " +
                            std::to_string(lists[k].size()) + " arrays, expected " + std::to_string(lists[0].size()) +
                            " to match params");
    }
  }
  add_limit(group);
  const py::object step = field(group.source, "step");
  const py::list indices = group.source.contains("indices") ? sequence(group.source, "indices") : py::list();
  const bool many_steps = py::isinstance<py::list>(step);
  for (std::size_t i = 0; i < lists[0].size(); ++i) {
    Tensor& t = tensors_.emplace_back();
    t.group = &group;
    t.index = indices.empty() ? params_ : py::cast<std::int64_t>(indices[i]);
    ++params_;
    t.step = py::cast<std::int64_t>(many_steps ? py::object(py::list(step)[i]) : step);
    t.host_step = group.has_step;
    for (std::size_t k = 0; k < lists.size(); ++k) read(t, static_cast<int>(k), PyList_GET_ITEM(lists[k].ptr(), i));
  }
  for (py::list& l : lists) keep_.push_back(std::move(l));
}

Norms StepCall::norms() {
  std::vector<NormWork> work;
  for (const Tensor& t : tensors_) {
    if (t.group->options.max_norm < 0.0) continue;
    const Array& g = t.array[1];
    work.push_back({g.data, g.format, g.is_complex, g.numel, common_layout(&g, 1, true, strided_)});
  }
  Norms norms = norms_of(work, clipping_);
  norms.total /= grad_scale_.value;
  for (double& n : norms.each) n /= grad_scale_.value;
  return norms;
}

void StepCall::prepare(const Norms* norms) {
  const Tensor* last = nullptr;
  double last_norm = 0.0;
  std::size_t clipped = 0;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor& t = tensors_[i];
    const Group& g = *t.group;
    double norm = 0.0;
    if (norms && g.options.max_norm >= 0.0) {
      norm = clipping_.per_tensor ? norms->each[clipped] : norms->total;
      ++clipped;
    }
    const DType compute = compute_type(t.array[0].format);
    if (!last || last->group != &g || last->step != t.step || compute_type(last->array[0].format) != compute ||
        !(last_norm == norm)) {
      StepOptions options = g.options;
      options.grad_scale = grad_scale_.value;
      fusedstep::prepare(g.rule, compute, options, norm, t.step, uniforms_.emplace_back().bytes);
    }
    last = &t;
    last_norm = norm;
    work_[i].uniform = uniforms_.back().bytes;
  }
}

// The arrays of all tensors as work, once they are known not to share memory.
void StepCall::collect() {
  AliasCheck alias;
  alias.reserve(tensors_.size() * kMaxStreams);
  work_.reserve(tensors_.size());
  numels_.reserve(tensors_.size());
  for (const Tensor& t : tensors_) {
    const Group& g = *t.group;
    const int streams = 2 + static_cast<int>(g.state_args.size());
    StepWork& w = work_.emplace_back();
    for (int k = 0; k < streams; ++k) {
      alias.add(t.array[k], k != 1, where(t, k));
      w.stream[k] = {t.array[k].data, t.array[k].format};
    }
    w.strided = common_layout(t.array, streams, false, strided_);
    w.streams = streams;
    w.compute = compute_type(t.array[0].format);
    w.rule = g.rule;
    w.numel = t.array[0].numel * (t.array[0].is_complex ? 2 : 1);
    numels_.push_back(w.numel);
  }
  alias.verify();
}

void StepCall::write_report(const Norms* norms, bool skipped) {
  if (!report_ || report_device_ != kHost) return;
  double coefficient = 1.0;
  if (norms) {
    coefficient = clip_coefficient(norms->total, least_max_norm_);
    report_[0] = norms->total;
    report_[1] = coefficient;
  }
  report_[2] += !skipped && coefficient < 1.0;
  report_[3] += skipped;
}

py::object StepCall::run() {
  collect();
  try {
    if (!clipping_.over_ranks.is_none()) keep_state();
    py::object norm = on_cuda() ? run_cuda() : run_cpu();
    if (!committed_) take_back();
    return norm;
  } catch (...) {
    if (!committed_) take_back();
    throw;
  }
}

py::object StepCall::run_cpu() {
  py::object result = py::none();
  bool skips = overflowed();
  std::optional<Norms> found;
  if (clips()) {
    found = norms();
    if (!skips) check_finite(*found, clipping_, label());
    skips = skips || (clipping_.nonfinite == Nonfinite::skip && !std::isfinite(found->total));
    result = clipping_.per_tensor ? py::cast(found->each) : py::cast(found->total);
  }
  const Norms* const norms = found ? &*found : nullptr;
  if (!skips) {
    prepare(norms);
    const Plan plan(numels_);
    commit();
    without_lock([&] { run_step(work_, plan, clips()); });
    count();
  }
  write_report(norms, skips);
  return result;
}

}  // namespace fusedstep
