// The parameters of a torch optimizer with their gradients and state, resolved in order and fetched ahead.
#pragma once
#include "call.h"

namespace fusedstep {

struct TorchParam {
  struct Source {
    const Group* group;
    const py::object* options;  // what makes its state is given
    std::uint32_t index;        // among the groups
    std::vector<py::object>
        state_keys;            // in its dict, interned: arrays, "step" if it has one, other numbers, perhaps an id
    std::size_t required = 0;  // so many of the rule; what rides along follows: a mask, then, from here on, an average
    std::size_t average = 0;
    py::object grad_name;
  };
  const Source* from;
  std::int64_t index;             // over all groups
  py::object param, grad, entry;  // entry: its dict in the optimizer's state; null where it has none or needs none
  py::object item[kMaxState + 4 + kMaxScalars];  // of the entry, for the state keys; null if missing or None
};

// The value of a key in a mapping, null if it has none.
py::object find_item(const py::handle& mapping, const py::handle& key);

// Holds a reference to everything it hands out until it is destroyed. A parameter that is given twice is there once.
// None in the place of one is passed over. `first` is the number of the first.
class TorchWalk {
 public:
  TorchWalk(const std::vector<TorchGroup>& groups, const py::object& state, std::int64_t first);

  std::size_t size() const { return params_.size(); }

  // visit(TorchParam&) for every parameter that has a gradient, or an average.
  template <class Visit>
  void each(Visit&& visit) {
    constexpr std::size_t kStage = 4;
    for (std::size_t i = 0; i < params_.size() + 4 * kStage; ++i) {
      if (i < params_.size()) touch(params_[i]);
      if (i >= kStage && i - kStage < params_.size()) open(params_[i - kStage]);
      if (i >= 2 * kStage && i - 2 * kStage < params_.size()) resolve(params_[i - 2 * kStage]);
      if (i >= 3 * kStage && i - 3 * kStage < params_.size()) fetch(params_[i - 3 * kStage]);
      if (i < 4 * kStage) continue;
      TorchParam& ready = params_[i - 4 * kStage];
      if (is_wanted(ready)) visit(ready);
    }
  }

 private:
  static bool is_wanted(const TorchParam& p) { return !p.grad.is_none() || p.from->group->averages; }
  static void touch(const TorchParam& p);
  static void open(const TorchParam& p);
  void drop_repeated();
  void resolve(TorchParam& p);
  static void fetch(const TorchParam& p);

  py::object state_;
  std::vector<TorchParam::Source> sources_;
  std::vector<TorchParam> params_;
};

}  // namespace fusedstep
