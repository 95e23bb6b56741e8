// What a call needs where numbers or arrays live on CUDA devices, and what a graph or a skipped step must not do.

#include <algorithm>

#include "../cuda/run.h"
#include "call.h"

namespace fusedstep {
namespace {

// Whether a captured stream is among them.
bool is_captured(const Call& call) {
  return std::any_of(call.streams.begin(), call.streams.end(),
                     [](const auto& s) { return cuda::is_capturing(s.first, s.second); });
}

}  // namespace

void PyCall::place_on_cuda() {
  check_cuda_norms(given_, call_);
  const Number &scale = call_.grad_scale, &found = call_.found_inf;
  if (scale.device != kHost && found.device != kHost && scale.device != found.device) {
    throw py::value_error(args_.label + ": grad_scale and found_inf are on different devices");
  }
  if (call_.report) {
    call_.norm_out = call_.report;
    call_.result_device = report_device_;
  }
  if (call_.does(kFold)) read_norm_out();
  call_.streams = reader_.streams();
  if (!is_captured(call_)) return;
  const char* obstacle = nullptr;
  if (waits_for_norm()) obstacle = "the norm is wanted on the host (no norm_out, or error_if_nonfinite)";
  if (!args_.over_ranks.is_none()) obstacle = "the norm is summed over norm_group on the host";
  check_captured(given_, call_, obstacle);
}

// Of its group, whose tensors have to be where it is.
void PyCall::read_lr(const Given& t) {
  Options& options = call_.options[t.options];
  const Given* const before = &t == given_.data() ? nullptr : &t - 1;
  if (before && before->options == t.options) {
    if (!options.lr.at || before->device() == t.device()) return;
    check_device(t.device(), t.where().text(), before->device(), ", where the group's lr is");
  }
  const Number lr = read_number(reader_, lr_[t.options].ptr(), {t.group->label.c_str(), "lr", 0});
  if (lr.device != kHost) {
    check_device(lr.device, t.group->label + ": lr", t.device(), " to match params[" + std::to_string(t.index) + "]");
  }
  options.lr = lr.at;
}

void PyCall::read_norm_out() {
  if (args_.norm_out.is_none()) return;
  const Where where{args_.label.c_str(), "norm_out", 0};
  const Array out = reader_.read(args_.norm_out.ptr(), where);
  const std::int64_t count = call_.per_tensor ? call_.sums : 1;
  if (out.device == kHost || out.format != Format::float64 || out.is_complex || !out.contiguous || out.numel != count) {
    throw py::value_error(where.text() + " is " + out.dtype_text() + " of shape " + out.shape_text() + " on " +
                          device_text(out.device) + ", expected " + std::to_string(count) +
                          " contiguous float64 on the CUDA device of the gradients");
  }
  check_writable(out, where);
  call_.norm_out = static_cast<double*>(out.data);
  call_.result_device = out.device;
}

// State that is made now, of a rule whose first step is another and that has no step count to tell a skipped one.
bool PyCall::has_stateless_first() const {
  return std::any_of(given_.begin(), given_.end(),
                     [](const Given& t) { return t.fresh && t.group->first_differs && !t.group->has_step; });
}

// On a device that is asked only where the host has to know: to raise for a norm that is not finite only if that is no
// overflow of loss scaling, and to leave no state behind where no step count tells a skipped first step.
bool PyCall::overflowed(bool waits) const {
  const Number& found = call_.found_inf;
  if (found.device == kHost) return found.value != 0.0;
  if (!call_.on_cuda() || (!waits && !has_stateless_first())) return false;
  double value = 0.0;
  for (const auto& [device, stream] : call_.streams) {
    if (device != found.device) continue;
    without_lock([&, device = device, stream = stream] { value = cuda::read(found.at, device, stream); });
  }
  return value != 0.0;
}

}  // namespace fusedstep
