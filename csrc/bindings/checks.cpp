// What is asked of arrays that have been read, one by one or against another.

#include <algorithm>

#include "layout.h"

namespace fusedstep {

void check_writable(const Array& a, const Where& where) {
  if (a.read_only) {
    throw py::value_error(where.text() + " " + a.read_only + ", expected a writable array (a NumPy copy, say)");
  }
  if (!a.contiguous && overlaps_itself(a)) {
    throw py::value_error(where.text() + " has elements that share memory (an expanded or overlapping view)" +
                          ", expected one location per element");
  }
}

void check_ordered(const Array& a, const Where& where) {
  if (!a.is_complex) return;
  throw py::type_error(where.text() + " has dtype " + a.dtype_text() +
                       ", expected real for clip_value: complex numbers have no order to clip by");
}

void check_one_kind(const Array& a, const Where& where, const Array& first) {
  if ((a.device == kHost) == (first.device == kHost)) return;
  throw py::value_error(where.text() + " is on device " + a.device_text() + ", expected " + first.device_text() +
                        " as " + where.arg + "[0]; CPU and CUDA arrays need calls of their own");
}

void check_matches(const Array& a, const Where& where, const Array& param) {
  const auto to_match = [&where] { return " to match params[" + std::to_string(where.index) + "]"; };
  if (a.device != param.device) {
    throw py::value_error(where.text() + " is on device " + a.device_text() + ", expected " + param.device_text() +
                          to_match());
  }
  if (a.format != param.format || a.is_complex != param.is_complex) {
    throw py::type_error(where.text() + " has dtype " + a.dtype_text() + ", expected " + param.dtype_text() +
                         to_match());
  }
  if (a.ndim != param.ndim || !std::equal(a.shape, a.shape + a.ndim, param.shape)) {
    throw py::value_error(where.text() + " has shape " + a.shape_text() + ", expected " + param.shape_text() +
                          to_match());
  }
}

}  // namespace fusedstep
