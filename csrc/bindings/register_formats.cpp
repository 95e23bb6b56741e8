// Storage formats by themselves: arrays decoded and encoded by the active target.

#include <algorithm>
#include <string>

#include "../cpu/dispatch.h"
#include "../cpu/threads.h"
#include "register.h"

namespace fusedstep {
namespace py = pybind11;
namespace {

Format format_of(const std::string& name) {
  std::string known;
  for (const FormatFacts& f : FormatTable<AllFormats>::at) {
    if (name == f.name) return f.id;
    known += std::string(known.empty() ? "" : ", ") + f.name;
  }
  throw py::value_error("format '" + name + "' is not known, expected one of: " + known);
}

// The memory of a 1-D array whose elements lie side by side and have so many bytes.
void* memory_of(const py::buffer_info& x, int item_size, py::ssize_t size) {
  if (x.ndim != 1 || x.itemsize != item_size || x.size != size || (size > 1 && x.strides[0] != x.itemsize)) {
    throw py::value_error("expected contiguous arrays of one dimension and size, of " + std::to_string(item_size) +
                          " bytes per element");
  }
  return x.ptr;
}

void decode(const std::string& name, const py::buffer& source, const py::buffer& target) {
  const Format format = format_of(name);
  const py::buffer_info from = source.request(), to = target.request(true);
  const void* const stored = memory_of(from, item_size(format), from.size);
  void* const values = memory_of(to, size_of(compute_type(format)), from.size);
  target_for_call().decode[static_cast<int>(format)](stored, 1, from.size, values);
}

void encode(const std::string& name, const py::buffer& source, const py::buffer& target, std::uint64_t key,
            std::int64_t first) {
  const Format format = format_of(name);
  const py::buffer_info from = source.request(), to = target.request(true);
  const char* values = static_cast<const char*>(memory_of(from, size_of(compute_type(format)), from.size));
  char* stored = static_cast<char*>(memory_of(to, item_size(format), from.size));
  const auto run = target_for_call().encode[static_cast<int>(format)];
  // A place ends at a multiple of 2^33.
  constexpr std::int64_t kPlaces = std::int64_t{1} << 33;
  for (std::int64_t left = from.size, n; left > 0; left -= n) {
    n = std::min({left, std::int64_t{facts(format).tile}, kPlaces - first % kPlaces});
    run(values, n, stored, 1, Place(key, first));
    values += n * from.itemsize;
    stored += n * to.itemsize;
    first += n;
  }
}

}  // namespace

void register_formats(py::module_& m) {
  m.def("decode", &decode, py::call_guard<FloatEnvironment>(), py::arg("format"), py::arg("source"), py::arg("target"));
  m.def("encode", &encode, py::call_guard<FloatEnvironment>(), py::arg("format"), py::arg("source"), py::arg("target"),
        py::arg("key") = 0, py::arg("first") = 0);
}

}  // namespace fusedstep
