// A step call on CUDA devices: nothing here waits for a device, unless the caller wants a number back.

#include <algorithm>
#include <cmath>

#include "call.h"

namespace fusedstep {

Norm cuda_norm(double norm_type, const char* label) {
  if (norm_type == 1.0) return Norm::one;
  if (norm_type == 2.0) return Norm::two;
  if (std::isinf(norm_type)) return Norm::inf;
  throw py::value_error(std::string(label) + ": norm_type is " + std::to_string(norm_type) +
                        ", expected 1, 2 or inf for arrays on CUDA devices");
}

void check_norm_kind(const Array& a, const Where& where, Norm norm) {
  if (!a.is_complex || norm == Norm::two) return;
  throw py::type_error(where.text() + " has dtype " + a.dtype_text() +
                       ", expected real for a norm of order 1 or inf on a CUDA device");
}

cuda::Call StepCall::cuda_call() {
  cuda::Call call;
  const Group* last = nullptr;
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    const Tensor& t = tensors_[i];
    const Group& g = *t.group;
    const Array& param = t.array[0];
    if (&g != last) {
      last = &g;
      cuda::DeviceOptions& o = call.options.emplace_back();
      o.host = g.options;
      o.host.grad_scale = grad_scale_.value;
      if (g.lr && !g.lr.is_none()) {
        const Number lr = read_number(reader_, g.lr.ptr(), {g.label.c_str(), "lr", 0});
        if (lr.device != kHost && lr.device != param.device) {
          throw py::value_error(g.label + ": lr is on device cuda:" + std::to_string(lr.device) + ", expected " +
                                param.device_text() + " to match params[" + std::to_string(t.index) + "]");
        }
        o.lr = lr.at;
      }
    } else if (call.options.back().lr.at && param.device != call.work.back().device) {
      throw py::value_error(g.label + ": params[" + std::to_string(t.index) + "] is on device " + param.device_text() +
                            ", expected that of the group's lr, cuda:" + std::to_string(call.work.back().device));
    }
    cuda::Work& w = call.work.emplace_back();
    w.tensor = work_[i];
    w.normed = g.options.max_norm >= 0.0;
    w.norm_layout = nullptr;
    w.device = param.device;
    w.options = static_cast<std::uint32_t>(call.options.size() - 1);
    w.step = t.step;
    w.step_at = t.step_at;
    if (!w.normed) continue;
    w.norm_layout = common_layout(&t.array[1], 1, true, strided_);
    check_norm_kind(t.array[1], where(t, 1), cuda_norm(clipping_.norm_type, g.label.c_str()));
  }
  call.has_norm = clips();
  if (clips()) call.norm = cuda_norm(clipping_.norm_type, label());
  call.per_tensor = clipping_.per_tensor;
  call.skip_nonfinite = clips() && clipping_.nonfinite == Nonfinite::skip;
  call.least_max_norm = least_max_norm_;
  if (report_device_ != kHost) {
    call.report = call.norm_out = report_;
    call.norm_device = report_device_;
  }
  call.scale = grad_scale_.value;
  call.grad_scale = grad_scale_.at;
  call.found_inf = found_inf_.at;
  call.scalar_device = grad_scale_.device != kHost ? grad_scale_.device : found_inf_.device;
  if (grad_scale_.device != kHost && found_inf_.device != kHost && grad_scale_.device != found_inf_.device) {
    throw py::value_error(std::string(label()) + ": grad_scale and found_inf are on different devices");
  }
  if (call.has_norm) {
    set_norm_out(call, clipping_.per_tensor, reader_, norm_out_, {label(), "norm_out", 0});
  }
  call.streams = reader_.streams();
  return call;
}

void set_norm_out(cuda::Call& call, bool per_tensor, Reader& reader, const py::object& norm_out, const Where& where) {
  if (norm_out.is_none()) return;
  const Array out = reader.read(norm_out.ptr(), where);
  const auto normed = std::count_if(call.work.begin(), call.work.end(), [](const cuda::Work& w) { return w.normed; });
  const std::int64_t count = per_tensor ? normed : 1;
  if (out.device == kHost || out.format != Format::float64 || out.is_complex || !out.contiguous || out.numel != count) {
    throw py::value_error(where.text() + " is " + out.dtype_text() + " of shape " + out.shape_text() + " on " +
                          out.device_text() + ", expected " + std::to_string(count) +
                          " contiguous float64 on the CUDA device of the gradients");
  }
  check_writable(out, where);
  call.norm_out = static_cast<double*>(out.data);
  call.norm_device = out.device;
}

bool waits_for_norm(const cuda::Call& call, const Clipping& clipping) {
  return call.has_norm && (!call.norm_out || clipping.nonfinite == Nonfinite::raise);
}

py::object run_cuda_call(cuda::Call call, const Clipping& clipping, bool waits,
                         const std::function<void(const Norms*)>& before_step) {
  const bool steps = call.steps;
  Norms norms{};
  cuda::Run run(std::move(call));
  if (!clipping.over_ranks.is_none()) {
    std::vector<double> sums;
    without_lock([&] { sums = run.sums(); });
    run.use_total(fold_sums(sums_of_ranks(sums, clipping), clipping.norm_type).total);
  }
  if (waits) {
    without_lock([&] { norms.each = run.norms(); });
    if (!clipping.per_tensor) norms.total = norms.each[0];
  }
  before_step(waits ? &norms : nullptr);
  if (steps || !waits) without_lock([&] { run.step(); });
  if (!waits) return py::none();
  return clipping.per_tensor ? py::cast(norms.each) : py::cast(norms.total);
}

bool is_captured(const cuda::Call& call) {
  return std::any_of(call.streams.begin(), call.streams.end(),
                     [](const auto& s) { return cuda::is_capturing(s.first, s.second); });
}

const char* capture_obstacle(const cuda::Call& call, const Clipping& clipping) {
  if (!is_captured(call)) return nullptr;
  if (!clipping.over_ranks.is_none()) return "the norm is summed over norm_group on the host";
  if (waits_for_norm(call, clipping)) return "the norm is wanted on the host (no norm_out, or error_if_nonfinite)";
  return nullptr;
}

// A graph repeats what is captured: what the host would do once, or count, has no place in it.
void StepCall::check_capture(const cuda::Call& call) {
  if (!is_captured(call)) return;
  const auto refuse = [](const Tensor& t, const std::string& why) {
    throw std::runtime_error(t.group->label + ": params[" + std::to_string(t.index) +
                             "] cannot be part of a CUDA graph: " + why);
  };
  for (const Tensor& t : tensors_) {
    if (t.fresh) refuse(t, "its state would be made anew by every replay; run a step before the capture");
    if (t.host_step) {
      refuse(t,
             "its step is counted on the host, expected a torch optimizer with capturable=True (Adam, AdamW, RMSprop)");
    }
    if (t.array[0].device != tensors_.front().array[0].device) refuse(t, "it is on another device than the first");
    if (const char* why = capture_obstacle(call, clipping_)) refuse(t, why);
  }
}

// State that is made now, of a rule without a step count that would tell a skipped first step.
bool StepCall::has_stateless_first() const {
  return std::any_of(tensors_.begin(), tensors_.end(), [](const Tensor& t) { return t.fresh && !t.group->has_step; });
}

// Whether the gradients have overflowed, where the host has to know: to raise for a norm that is not finite only if
// that is no overflow of loss scaling, and to leave no state behind where no step count tells a skipped first step.
bool StepCall::overflowed(const cuda::Call& call, bool waits) {
  if (found_inf_.device == kHost) return overflowed();
  if (!has_stateless_first() && !waits) return false;
  double found = 0.0;
  for (const auto& [device, stream] : call.streams) {
    if (device != found_inf_.device) continue;
    without_lock([&, device = device, stream = stream] { found = cuda::read(found_inf_.at, device, stream); });
  }
  return found != 0.0;
}

// A step that is skipped runs all the same, as far as its kernels go: they see why, and write the report.
py::object StepCall::run_cuda() {
  cuda::Call call = cuda_call();
  check_capture(call);
  bool waits = waits_for_norm(call, clipping_);
  bool skips = overflowed(call, waits);
  call.skips = skips;
  waits = waits || (call.has_norm && call.skip_nonfinite && has_stateless_first());
  py::object norm = run_cuda_call(std::move(call), clipping_, waits, [&](const Norms* norms) {
    if (skips) return;
    if (norms) check_finite(*norms, clipping_, label());
    skips = norms && clipping_.nonfinite == Nonfinite::skip && !std::isfinite(norms->total);
    if (!skips) commit();
  });
  if (!skips) count();
  return norm;
}

}  // namespace fusedstep
