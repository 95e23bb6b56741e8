// _core.cuda_host: what tests place where, and what they steer.
#include <map>

#include "../../csrc/bindings/arrays.h"
#include "../../csrc/bindings/register.h"
#include "host.h"

namespace fusedstep {
namespace {

bool scalars_on_device = false;
std::uintptr_t current_stream = 0;
std::map<std::uintptr_t, std::pair<std::uintptr_t, int>> placed;  // start: end, device

int place(const void* data, bool is_scalar) {
  const auto address = reinterpret_cast<std::uintptr_t>(data);
  auto range = placed.upper_bound(address);
  if (range != placed.begin() && address < std::prev(range)->second.first) return std::prev(range)->second.second;
  return is_scalar && !scalars_on_device ? kHost : 0;
}

void* stream_of(int) { return reinterpret_cast<void*>(current_stream); }

}  // namespace

void register_cuda_host(py::module_& core) {
  py::module_ m = core.def_submodule("cuda_host");
  // From now on every array counts as lying on device 0, but for those placed elsewhere; numbers only if `scalars`.
  m.def(
      "pretend",
      [](bool on, bool scalars) {
        set_placement(on ? place : nullptr, stream_of);
        scalars_on_device = scalars;
        placed.clear();
        current_stream = 0;
      },
      py::arg("on"), py::arg("scalars") = false);
  m.def("place",
        [](std::uintptr_t address, std::size_t bytes, int device) { placed[address] = {address + bytes, device}; });
  m.def("use_stream", [](std::uintptr_t stream) { current_stream = stream; });
  m.def("synchronize", &cuda_host::synchronize);
  m.def("overwrite", &cuda_host::overwrite);
  m.def("begin_capture", &cuda_host::begin_capture);
  m.def("end_capture", &cuda_host::end_capture);
  m.def("replay", &cuda_host::replay);
  m.def("seed", &cuda_host::seed);
  m.def("fail", &cuda_host::fail);
  m.def("launches", &cuda_host::launches);
  m.def("last_error", &cuda_host::last_error);
  m.def("allocations", &cuda_host::allocations);
}

}  // namespace fusedstep
