// A group of parameters: its rule, its options, and what messages and checkpoints call its arrays. Made once and kept
// while the options stay what they are.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "options.h"

namespace fusedstep {

// How a state array is rounded that is stored in fewer bits than the rule computes in; exact: it must not be.
enum class Rounding : std::uint8_t { exact, nearest, stochastic };

struct Group {
  std::string label;                // of the optimizer, in messages
  int rule = -1;                    // index in AllRules
  std::vector<std::string> args;    // names in messages: parameter, gradient, state arrays, states of one number
  std::vector<std::string> states;  // names of the state arrays, as in a torch state dict
  Options options{};                // but for what a call adds: grad_scale, an lr on a device
  bool has_step = false;            // a torch state dict has a "step"
  bool capturable = false;
  bool first_differs = false;            // the rule's first step does
  bool two_passes = false;               // the rule has sums over a tensor
  std::string takes_sparse = {};         // the class that does, for messages
  std::vector<Rounding> rounding = {};   // of each state array
  bool draws = false;                    // a torch state dict has a "tensor_id"
  std::string grad_attr = "grad";        // where a torch parameter has its gradient
  bool masks = false, averages = false;  // tensors may have a mask; have an average

  int streams() const { return 2 + static_cast<int>(states.size()); }
  // Options of options.host.ride need a kernel of their own.
  bool rides() const { return options.host.ride.any() || averages; }
  int scalars() const { return static_cast<int>(args.size()) - streams(); }
};

// std::invalid_argument unless there is a rule with these state arrays, and a number for each of its hyper-parameters.
Group make_group(std::string label, const std::string& rule, std::vector<std::string> states,
                 std::vector<std::string> state_args, const std::map<std::string, double>& hyper, double weight_decay,
                 bool decoupled, bool maximize, std::optional<double> max_norm, std::optional<double> clip_value,
                 bool has_step, std::string takes_sparse, bool capturable, const std::vector<std::string>& rounding,
                 std::uint64_t seed, bool draws, std::string grad_attr);
// Adds what rides along. std::invalid_argument where the rule cannot take it.
void add_rides(Group& group, double l1, const std::string& mask, bool cautious, bool cautious_decay,
               const std::string& decay_mode, double decay_lr, bool averages, bool stats,
               const std::vector<double>& starts);
// Of gradients that are clipped in place, to a norm and within a bound, or whose norm is wanted.
int clip_rule();
Group clip_group(std::string label, const std::string& arg, std::optional<double> max_norm,
                 std::optional<double> clip_value);

}  // namespace fusedstep
