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
  if (!args_.over_ranks.is_none() && !call_.told_there) obstacle = "the norm is summed over norm_group on the host";
  check_captured(given_, call_, obstacle);
}

bool PyCall::ranks_on_device() const {
  return !args_.over_ranks.is_none() &&
         py::getattr(args_.over_ranks, "on_device", py::bool_(false)).is(py::bool_(true));
}

void PyCall::exchange_there(Run& run, const std::vector<std::int64_t>& indices) {
  const auto doubles = [&](const py::object& object, const char* name) {
    const Where where{args_.label.c_str(), name, 0};
    const Array a = reader_.read(keep_.emplace_back(object).ptr(), where);
    if (a.format != Format::float64 || !a.contiguous) throw py::value_error(where.text() + " is no array of float64");
    check_device(a.device, where.text(), given_.front().device(), " as the gradients");
    return a;
  };
  const Array own = doubles(args_.over_ranks.attr("buffer")(indices.size()), "sums");
  without_lock([&] { run.measure_at(static_cast<double*>(own.data)); });
  const py::object sums = keep_.back();
  const Array whole = doubles(survive_exit([&] { return args_.over_ranks.attr("gather")(sums, indices); }), "sums");
  double* const data = static_cast<double*>(whole.data);
  const Scalar failed{data + whole.numel - 1, true};
  run.use_sums_at(data, whole.numel - 1, failed);
  if (!has_stateless_first()) return;
  double value = 0.0;
  const auto [device, stream] = call_.streams.front();
  without_lock([&, device = device, stream = stream] { value = cuda::read(failed, device, stream); });
  if (value != 0.0) throw std::runtime_error(args_.label + ": another rank raised an error; nothing was changed here");
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
