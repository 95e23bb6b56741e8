// An array as it was given: where it lies and how, what messages say of it, and what is asked of it alone or beside
// another. Errors are std::invalid_argument, or TypeError where it is of the wrong kind.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>

#include "../formats/all.h"
#include "scalar.h"

namespace fusedstep {

struct TypeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// Which argument a message is about: "adam: grads[3]".
struct Where {
  const char* label;
  const char* arg;
  std::int64_t index;
  const char* takes_sparse = nullptr;  // the class to name for a sparse gradient, if there is one
  std::string text() const;
};

struct Array {
  void* data;
  std::int64_t numel;
  const std::int64_t* shape;
  const std::int64_t* stride;  // elements; null: C-contiguous
  int ndim;
  int device;  // of CUDA, or kHost
  Format format;
  bool is_complex;        // pairs of it
  const char* read_only;  // why it must not be written, or null
  bool contiguous;        // in row-major order

  std::int64_t stride_of(int dim) const { return stride ? stride[dim] : dense_stride(dim); }
  int element_bytes() const { return item_size(format) * (is_complex ? 2 : 1); }
  // Of an array of one number.
  Scalar scalar() const { return {data, format == Format::float64}; }

  std::string shape_text() const;
  std::string dtype_text() const;

 private:
  std::int64_t dense_stride(int dim) const;
};

std::string device_text(int device);

// Errors about an array that is written: read-only, or elements that share memory.
void check_writable(const Array& a, const Where& where);
// Errors for complex numbers, which have no order to clip by.
void check_ordered(const Array& a, const Where& where);
// Errors unless it is on this device. `why`: " to match params[3]".
void check_device(int device, const std::string& what, int expected, const std::string& why);
// Errors unless both are on the CPU, or both on CUDA devices: one call does not wait for the other kind.
void check_one_kind(const Array& a, const Where& where, const Array& first);
// Errors unless an array has shape and device of its parameter.
void check_beside_param(const Array& a, const Where& where, const Array& param);
// Errors unless a gradient has shape and device of its parameter, and a dtype that is decoded to the same type.
void check_gradient(const Array& a, const Where& where, const Array& param);
// The same of a state array, which is stored as what the rule computes in or, where it may lose bits, as bfloat16.
void check_state(const Array& a, const Where& where, const Array& param, bool exact);

}  // namespace fusedstep
