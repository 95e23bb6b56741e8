// Arrays in: NumPy through the buffer protocol, torch through the DLPack C exchange API (or attributes where a torch is
// too old to have it), anything else through __dlpack__. All validation of arrays and all its messages are here.
// Nothing is cached between calls but facts about types, so no address can be stale.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <deque>
#include <string>
#include <vector>

#include "../cpu/run.h"
#include "dlpack.h"

namespace fusedstep {

namespace py = pybind11;

struct TypeFacts;

// Which argument a message is about: "adam: grads[3]".
struct Where {
  const char* label;
  const char* arg;
  std::int64_t index;
  std::string text() const;
};

struct Array {
  void* data;
  std::int64_t numel;
  const std::int64_t* shape;
  const std::int64_t* stride;  // elements; null: C-contiguous
  int ndim;
  DType dtype;
  bool is_complex;  // pairs of dtype
  bool read_only;
  bool contiguous;  // in row-major order

  std::string shape_text() const;
  std::string dtype_text() const;
};

// Reads arrays for one call and keeps what they need alive until it is destroyed.
class Reader {
 public:
  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader();

  // Throws TypeError or ValueError naming `where`. Accepts float32, float64 and complex of them, on the CPU, aligned.
  Array read(PyObject* object, const Where& where);
  // One number on the CPU, without the questions that only tensors with gradients in them need.
  Array read_scalar(PyObject* object, const Where& where);

 private:
  Array fetch(PyObject* object, const TypeFacts& facts, const Where& where);
  Array from_exchange(PyObject* object, const TypeFacts& facts, const Where& where);
  Array from_attributes(PyObject* object, const Where& where);
  Array from_buffer(PyObject* object, const Where& where);
  Array from_capsule(PyObject* object, const Where& where);
  Array from_dlpack(PyObject* object, const dlpack::Tensor& t, const Where& where);

  std::deque<std::vector<std::int64_t>> dims_;
  std::deque<Py_buffer> buffers_;
  std::vector<py::object> keep_;
};

// Off: torch tensors are read through their attributes, as with a torch that has no exchange API. For tests.
void set_exchange_api(bool on);

// Errors about an array that is written: read-only, or elements that share memory.
void check_writable(const Array& a, const Where& where);
// Errors for complex numbers, which have no order to clip by.
void check_ordered(const Array& a, const Where& where);
// Errors unless dtype and shape equal those of the parameter.
void check_matches(const Array& a, const Where& where, const Array& param);

}  // namespace fusedstep
