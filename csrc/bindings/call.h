// The Python side of a call: arrays and numbers read and validated whole, then the phases of call/call.h, in one
// parallel region each on the CPU, or in as few launches as there are rules and dtypes on CUDA devices. Arrays in lists
// and the phases: call.cpp. What CUDA needs: call_cuda.cpp. A torch optimizer: call_torch.cpp.
#pragma once
#include <memory>
#include <optional>
#include <tuple>

#include "../call/given.h"
#include "arrays.h"
#include "interpreter.h"

namespace fusedstep {

// A group of one call as Python hands it over (_core.pyi). Of arrays in lists: params, grads, a list per state array,
// step, indices of the parameters in messages or None, their ids or None.
using ListsGroup = std::tuple<std::shared_ptr<Group>, py::list, py::list, py::list, py::object, std::optional<py::list>,
                              std::optional<py::list>>;
// With masks, of which some may be None, or None; and averages or None. With these a gradient may be None.
using Beside = std::tuple<std::optional<py::list>, std::optional<py::list>>;
using RidingGroup = std::tuple<std::shared_ptr<Group>, py::list, py::list, py::list, py::object,
                               std::optional<py::list>, std::optional<py::list>, Beside>;
// Of a torch optimizer: params, lr if it is a tensor, perhaps on a device, and what makes state is given.
using TorchGroup = std::tuple<std::shared_ptr<Group>, py::object, py::object, py::object>;

// What concerns all groups of a call; None is not given.
struct CallArgs {
  std::string label;  // of messages that are about no array
  double norm_type = 2.0;
  bool per_tensor = false;
  Nonfinite nonfinite = Nonfinite::propagate;
  py::object grad_scale = py::none();    // a float, or an array of one number
  py::object found_inf = py::none();     // an array of one number: other than zero means no step
  py::object norm_out = py::none();      // a float64 array on the device for the norm(s)
  py::object report = py::none();        // four float64 where the gradients are: Call::report
  py::object stream = py::none();        // the address of a CUDA stream
  py::object over_ranks = py::none();    // takes the sums of this process's tensors, returns those of every rank;
                                         // may do so on a device (_core.pyi)
  py::object place_of = py::none();      // takes a DTensor, returns shape and offset of its Shard; None: it is whole
  py::object stats = py::none();         // float64 where the tensors are: kStats for each parameter of all groups
  py::object before_write = py::none();  // is told, before anything is written, which objects will be; it may raise
  // Of a torch optimizer, if the parameters are some of its own: the number of the first, and how many it has.
  std::optional<std::pair<std::int64_t, std::int64_t>> part = std::nullopt;
};

struct TorchParam;
class TorchWalk;

class PyCall {
 public:
  explicit PyCall(const CallArgs& args);
  ~PyCall();

  // Arrays given as lists; `step` is one number or one per parameter.
  void add_lists(const ListsGroup& lists, const Beside& beside = {});
  // Parameters of a torch optimizer: gradients from .grad, state from `state`, a dict per parameter. A parameter
  // without usable state gets init(param, options) when the call has been validated; a step count that has to be on the
  // device and is not, to_device(step, param).
  void add_torch(const std::vector<TorchGroup>& groups, const py::object& state, const py::object& init,
                 const py::object& to_device);
  // Arrays of which the norm is wanted, or which are clipped in place: those phases. `total_norm`, unless None, is the
  // norm where it is not measured.
  void add_gradients(const py::list& arrays, const Group& group, Phases phases, const py::object& total_norm);

  // Validates what concerns all arrays together and runs the phases. Returns the norm(s), if there are any that are not
  // left in norm_out or report, else None. What follows the first write cannot fail.
  py::object run();

 private:
  void read_report(const py::object& report);
  void read_stats();
  // Array k of a tensor: 0 the parameter, which comes first, 1 its gradient, then state.
  void read(Given& t, int k, PyObject* object);
  // Behind its state, in this order. A complex tensor has no mask.
  void read_mask(Given& t, PyObject* object);
  void read_average(Given& t, PyObject* object);
  // Its options become the call's; their index there. `lr`: null, or a tensor in place of theirs.
  std::uint32_t add_group(const Group& group, const py::object& lr = {});
  bool limits_norm() const { return call_.least_max_norm >= 0.0; }
  // TypeError for a shard where the whole of a parameter would be needed.
  void check_whole(const Given& t, PyObject* param) const;
  py::object run_phases();
  bool waits_for_norm() const;
  // The sums of this process, for those of all ranks.
  void exchange(Run& run);
  void exchange_there(Run& run, const std::vector<std::int64_t>& indices);
  // Whether that can be done without waiting for a device.
  bool ranks_on_device() const;
  // The gradients are known to have overflowed.
  bool overflowed(bool waits) const;

  void add_param(TorchParam& p, const py::object& init, const py::object& to_device);
  void make_state(Given& t, TorchParam& p, const py::object& init);
  // That of a parameter without a gradient.
  void add_follower(TorchParam& p, const py::object& init);
  void make_average(TorchParam& p, const py::object& init);
  // Where the elements of a parameter that draws random numbers are in the whole of it.
  void find_place(Given& t, const TorchParam& p);
  // A number of the state, moved to the tensor's device where it has to be there.
  Array read_number_of_state(const Given& t, TorchParam& p, std::size_t key, const Where& where, bool on_device,
                             const py::object& to_device);
  void add_step(Given& t, TorchParam& p, const py::object& to_device);
  // Whether a skipped step is known on the device alone, so that step counts have to be there.
  bool counts_on_device() const {
    return call_.found_inf.device != kHost ||
           (limits_norm() && (call_.nonfinite == Nonfinite::skip || ranks_on_device()));
  }
  // New state becomes the caller's; take_back() undoes it, unless commit() has followed. Where other ranks wait, before
  // they are told that all is well here.
  void keep_state();
  void take_back();
  void commit();

  void check_on_host() const;
  void place_on_cuda();
  void read_lr(const Given& t);
  void read_norm_out();
  bool has_stateless_first() const;

  const CallArgs args_;
  Call call_;
  Reader reader_;
  std::vector<Given> given_;
  double* report_ = nullptr;
  int report_device_ = kHost;
  std::vector<py::object> lr_;    // of each of the call's options
  std::vector<py::object> keep_;  // while the interpreter lock is released
  PyObject* param_ = nullptr;     // that of the tensor which is being read
  Placement placement_;           // of that
  std::deque<Shard> shards_;      // what tensors point to
  py::list written_;              // for before_write
  std::int64_t params_ = 0;

  std::unique_ptr<TorchWalk> walk_;
  py::object state_;                                          // of a torch optimizer: a mapping
  std::vector<std::pair<py::object, py::object>> new_state_;  // parameter, its dict
  struct Item {
    py::object entry, key, value;
  };
  std::vector<Item> moved_;  // numbers of a parameter's dict, now on its device
  std::vector<Item> kept_;   // what keep_state() has set, and the value before, null where there was none
  bool has_kept_ = false, committed_ = false;  // committed: nothing that follows can fail
};

}  // namespace fusedstep
