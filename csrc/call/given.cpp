#include "given.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>

namespace fusedstep {

Where Given::where(int k) const {
  const char* const arg = k > 1 && k == mask() ? "masks" : k > 1 && k == average() ? "emas" : group->args[k].c_str();
  return {group->label.c_str(), arg, index, group->takes_sparse.c_str()};
}

Where Given::where_number(int k) const {
  return {group->label.c_str(), group->args[group->streams() + k].c_str(), index, group->takes_sparse.c_str()};
}

void collect(const std::vector<Given>& given, Call& call) {
  AliasCheck alias;
  const bool writes = call.does(kApply);
  if (writes) alias.reserve(given.size() * kMaxStreams);
  call.tensors.reserve(given.size());
  for (const Given& g : given) {
    const Array& param = g.array[0];
    Tensor& t = call.tensors.emplace_back();
    t.streams = g.streams();
    t.mask = g.mask();
    t.average = g.average();
    t.follows = g.follows;
    t.compute = compute_type(param.format);
    bool draws = false;
    for (int k = 0; k < t.streams; ++k) {
      const bool is_written = g.follows ? k == t.average : k != 1 && (k == 0 || k != t.mask);
      if (writes && !(k == 1 && (call.in_place || g.follows))) alias.add(g.array[k], is_written, g.where(k));
      Format format = g.array[k].format;
      if (k > 1 && k < g.rule_streams() && g.group->rounding[k - 2] == Rounding::stochastic)
        format = stochastic(format);
      if (k > 1 && k == t.mask) format = mask_format(t.compute);
      draws = draws || facts(format).draws;
      t.stream[k] = {g.array[k].data, format};
    }
    for (int k = 0; k < g.group->scalars() && g.scalars[k].at; ++k) alias.add(g.scalars[k], g.where_number(k));
    if (g.step_at.at) alias.add(g.step_at, {g.group->label.c_str(), "step", g.index});
    t.rule = g.follows ? clip_rule() : g.group->rule;
    t.nonzero = g.group->options.host.ride.nonzero && !g.follows;
    t.clips = g.group->options.host.clip_value < std::numeric_limits<double>::infinity();
    t.rides = g.group->rides() || g.has_mask;
    if (g.group->options.host.ride.stats && call.stats && !g.follows) t.stats = g.row;
    t.numel = param.numel * (param.is_complex ? 2 : 1);
    t.two_passes = g.group->two_passes;
    // Sums over a tensor and the places of random numbers are in row-major order; a step alone takes any.
    // So are statistics.
    const Shard* const shard = draws ? g.shard : nullptr;
    const bool row_major = t.two_passes || draws || t.stats >= 0;
    if (writes) t.strided = common_layout(g.array, t.streams, row_major, call.layouts, shard);
    if (shard) t.origin = shard->origin();
    t.apart = lies_apart(t);
    if (call.does(kMeasure) && g.group->options.host.max_norm >= 0.0 && !g.follows) {
      t.sum = call.sums++;
      const Array read[] = {g.array[1], g.array[t.mask]};  // with what tells which elements count
      t.row_major = common_layout(read, t.mask > 0 || t.nonzero ? 2 : 1, true, call.layouts);
    }
    t.is_complex = param.is_complex;
    t.device = param.device;
    t.options = g.options;
    t.step = g.step;
    t.id = g.id;
    t.step_at = g.step_at;
    std::copy(std::begin(g.scalars), std::end(g.scalars), t.scalars);
  }
  alias.verify();
}

void check_beside(const Array& a, const Where& where, const Given& tensor) {
  check_writable(a, where);
  check_device(a.device, where.text(), tensor.device(), " to match params[" + std::to_string(tensor.index) + "]");
}

void check_real(const Given& t, const char* what) {
  if (!t.array[0].is_complex) return;
  throw TypeError(t.where(0).text() + " has dtype " + t.array[0].dtype_text() + ", expected real for " + what);
}

void check_rides(const Given& t) {
  const RideOptions& ride = t.group->options.host.ride;
  if (ride.l1 != 0.0) check_real(t, "l1");
  if (ride.nonzero) check_real(t, "mask='nonzero'");
  if (ride.cautious) check_real(t, "cautious");
  if (ride.cautious_decay) check_real(t, "cautious_decay");
}

void check_cuda_norms(const std::vector<Given>& given, const Call& call) {
  const Norm norm = norm_of(call.norm_type);
  for (const Given& g : given) {
    if (!call.does(kMeasure) || g.group->options.host.max_norm < 0.0) continue;
    if (norm == Norm::pow) {
      throw std::invalid_argument(g.group->label + ": norm_type is " + std::to_string(call.norm_type) +
                                  ", expected 1, 2 or inf for arrays on CUDA devices");
    }
    if (g.array[1].is_complex && norm != Norm::two) {
      throw TypeError(g.where(1).text() + " has dtype " + g.array[1].dtype_text() +
                      ", expected real for a norm of order 1 or inf on a CUDA device");
    }
  }
}

void check_captured(const std::vector<Given>& given, const Call& call, const char* obstacle) {
  for (const Given& g : given) {
    const auto refuse = [&g](const std::string& subject, const char* why) {
      throw std::runtime_error(g.group->label + ": " + subject + "cannot be part of a CUDA graph: " + why);
    };
    if (call.in_place) {
      if (obstacle) refuse("", obstacle);
      continue;
    }
    const std::string param = "params[" + std::to_string(g.index) + "] ";
    if (g.fresh) refuse(param, "its state would be made anew by every replay; run a step before the capture");
    if (g.host_step) {
      refuse(param, "its step is counted on the host, expected a torch optimizer with capturable=True");
    }
    if (g.device() != given.front().device()) refuse(param, "it is on another device than the first");
    if (obstacle) refuse(param, obstacle);
  }
}

}  // namespace fusedstep
