#include "array.h"

#include <algorithm>
#include <functional>
#include <numeric>

#include "layout.h"

namespace fusedstep {

std::string Where::text() const { return std::string(label) + ": " + arg + "[" + std::to_string(index) + "]"; }

std::int64_t Array::dense_stride(int dim) const {
  return std::accumulate(shape + dim + 1, shape + ndim, std::int64_t{1}, std::multiplies<>());
}

std::string Array::shape_text() const {
  std::string out = "(";
  for (int k = 0; k < ndim; ++k)
    out += std::to_string(shape[k]) + (k + 1 < ndim || ndim == 1 ? "," : "") + (k + 1 < ndim ? " " : "");
  return out + ")";
}

std::string Array::dtype_text() const {
  if (is_complex) return format == Format::float32 ? "complex64" : "complex128";
  return format_name(format);
}

void check_writable(const Array& a, const Where& where) {
  if (a.read_only) {
    throw std::invalid_argument(where.text() + " " + a.read_only + ", expected a writable array (a NumPy copy, say)");
  }
  if (!a.contiguous && overlaps_itself(a)) {
    throw std::invalid_argument(where.text() + " has elements that share memory (an expanded or overlapping view)" +
                                ", expected one location per element");
  }
}

void check_ordered(const Array& a, const Where& where) {
  if (!a.is_complex) return;
  throw TypeError(where.text() + " has dtype " + a.dtype_text() +
                  ", expected real for clip_value: complex numbers have no order to clip by");
}

std::string device_text(int device) { return device == kHost ? "cpu" : "cuda:" + std::to_string(device); }

void check_device(int device, const std::string& what, int expected, const std::string& why) {
  if (device == expected) return;
  throw std::invalid_argument(what + " is on device " + device_text(device) + ", expected " + device_text(expected) +
                              why);
}

void check_one_kind(const Array& a, const Where& where, const Array& first) {
  if ((a.device == kHost) == (first.device == kHost)) return;
  check_device(a.device, where.text(), first.device,
               std::string(" as ") + where.arg + "[0]; CPU and CUDA arrays need calls of their own");
}

namespace {

std::string to_match(const Where& where) { return " to match params[" + std::to_string(where.index) + "]"; }

// What is beside real numbers that are computed with as float32 may be stored otherwise.
bool may_differ(const Array& a, const Array& param) {
  return !a.is_complex && !param.is_complex && compute_type(a.format) == Compute::float32 &&
         compute_type(param.format) == Compute::float32;
}

}  // namespace

void check_beside_param(const Array& a, const Where& where, const Array& param) {
  if (a.device != param.device) check_device(a.device, where.text(), param.device, to_match(where));
  if (a.ndim != param.ndim || !std::equal(a.shape, a.shape + a.ndim, param.shape)) {
    throw std::invalid_argument(where.text() + " has shape " + a.shape_text() + ", expected " + param.shape_text() +
                                to_match(where));
  }
}

void check_gradient(const Array& a, const Where& where, const Array& param) {
  const bool same = a.format == param.format && a.is_complex == param.is_complex;
  if (!same && !may_differ(a, param)) {
    const char* const others = may_differ(param, param) ? " (float32, bfloat16 and float16 go together)" : "";
    throw TypeError(where.text() + " has dtype " + a.dtype_text() + ", expected " + param.dtype_text() +
                    to_match(where) + others);
  }
  check_beside_param(a, where, param);
}

void check_state(const Array& a, const Where& where, const Array& param, bool exact) {
  Array plain = param;
  plain.format = plain_format(compute_type(param.format));
  const bool same = a.format == plain.format && a.is_complex == param.is_complex;
  const bool may_lose_bits = !exact && may_differ(param, param);
  if (!same && !(may_lose_bits && !a.is_complex && a.format == Format::bfloat16)) {
    throw TypeError(where.text() + " has dtype " + a.dtype_text() + ", expected " + plain.dtype_text() +
                    (may_lose_bits ? " or bfloat16" : "") + to_match(where));
  }
  check_beside_param(a, where, param);
}

}  // namespace fusedstep
