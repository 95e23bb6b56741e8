#include "group.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <utility>

#include "../kernels/registry.h"

namespace fusedstep {
namespace {

double value_of(const std::map<std::string, double>& hyper, const std::string& name, const std::string& rule) {
  const auto found = hyper.find(name);
  if (found == hyper.end()) throw std::invalid_argument("rule '" + rule + "' has no number for '" + name + "'");
  return found->second;
}

std::vector<Rounding> roundings(const std::vector<std::string>& names, std::size_t states) {
  if (names.empty()) return std::vector<Rounding>(states, Rounding::exact);
  std::vector<Rounding> out;
  for (const std::string& name : names) {
    out.push_back(name == "nearest"      ? Rounding::nearest
                  : name == "stochastic" ? Rounding::stochastic
                                         : Rounding::exact);
  }
  if (out.size() != states) throw std::invalid_argument("rounding has another length than states");
  return out;
}

void set_limits(StepOptions& options, std::optional<double> max_norm, std::optional<double> clip_value) {
  options.max_norm = max_norm.value_or(-1.0);
  options.clip_value = clip_value.value_or(std::numeric_limits<double>::infinity());
}

}  // namespace

Group make_group(std::string label, const std::string& rule, std::vector<std::string> states,
                 std::vector<std::string> state_args, const std::map<std::string, double>& hyper, double weight_decay,
                 bool decoupled, bool maximize, std::optional<double> max_norm, std::optional<double> clip_value,
                 bool has_step, std::string takes_sparse, bool capturable, const std::vector<std::string>& rounding,
                 std::uint64_t seed, bool draws, std::string grad_attr) {
  Group g{std::move(label), find_rule(rule, states), {"params", "grads"}, std::move(states)};
  if (g.rule < 0) throw std::invalid_argument("no rule '" + rule + "' with these state arrays");
  const RuleInfo& info = all_rules()[g.rule];
  if (const std::size_t expected = g.states.size() + info.scalars.size(); state_args.size() != expected) {
    throw std::invalid_argument(g.label + ": state_args has " + std::to_string(state_args.size()) +
                                " names, expected " + std::to_string(expected) + " to match states");
  }
  for (std::string& arg : state_args) g.args.push_back(std::move(arg));
  if (!info.group_scalars.empty()) throw std::invalid_argument(g.label + ": there is no way yet to pass group scalars");
  const std::vector<std::string>& names = info.hyper;
  StepOptions& options = g.options.host;
  for (std::size_t k = 0; k < names.size(); ++k) options.hyper[k] = value_of(hyper, names[k], rule);
  options.weight_decay = weight_decay;
  options.decoupled = decoupled;
  options.maximize = maximize;
  set_limits(options, max_norm, clip_value);
  g.has_step = has_step;
  g.capturable = capturable;
  g.two_passes = info.sums > 0;
  g.first_differs = info.first_differs;
  g.takes_sparse = std::move(takes_sparse);
  g.rounding = roundings(rounding, g.states.size());
  options.seed = seed;
  g.draws = draws;
  g.grad_attr = std::move(grad_attr);
  return g;
}

void add_rides(Group& g, double l1, const std::string& mask, bool cautious, bool cautious_decay,
               const std::string& decay_mode, double decay_lr, bool averages, bool stats,
               const std::vector<double>& starts) {
  static const char* const modes[] = {"lr", "fixed", "relative", "squared"};
  RideOptions& ride = g.options.host.ride;
  const auto mode = std::find(std::begin(modes), std::end(modes), decay_mode);
  if (mode == std::end(modes)) throw std::invalid_argument(g.label + ": decay_mode is '" + decay_mode + "'");
  if (starts.size() > g.states.size()) throw std::invalid_argument(g.label + ": starts is longer than states");
  std::copy(starts.begin(), starts.end(), ride.start);
  ride.l1 = l1;
  ride.decay_mode = static_cast<DecayMode>(mode - std::begin(modes));
  ride.decay_lr = decay_lr;
  ride.cautious = cautious;
  ride.cautious_decay = cautious_decay;
  ride.nonzero = mask == "nonzero";
  ride.stats = stats;
  g.masks = mask == "array";
  g.averages = averages;
  if (g.two_passes && (g.rides() || g.masks)) {
    throw std::invalid_argument(g.label + ": nothing rides along with a rule that has sums over a tensor");
  }
}

int clip_rule() {
  static const int rule = find_rule("clip", {});
  return rule;
}

Group clip_group(std::string label, const std::string& arg, std::optional<double> max_norm,
                 std::optional<double> clip_value) {
  Group g{std::move(label), clip_rule(), {arg, arg}, {}};
  set_limits(g.options.host, max_norm, clip_value);
  return g;
}

}  // namespace fusedstep
