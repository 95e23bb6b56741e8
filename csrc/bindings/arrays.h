// Arrays in: NumPy through the buffer protocol, torch through the DLPack C exchange API (or attributes where a torch is
// too old to have it), anything else through __dlpack__. The ways in are in readers.cpp.
// Nothing is cached between calls but facts about types, so no address can be stale.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "../call/scalar.h"
#include "../formats/all.h"
#include "dlpack.h"

namespace fusedstep {

namespace py = pybind11;

struct TypeFacts;

// Which argument a message is about: "adam: grads[3]".
struct Where {
  const char* label;
  const char* arg;
  std::int64_t index;
  const char* takes_sparse = nullptr;  // the class to name for a sparse gradient, if there is one
  std::string text() const;
};

// What becomes of a torch tensor whose values are the negative or the conjugate of what its memory holds: an error; its
// memory as it is, where signs do not matter; or a tensor made of its values.
enum class Lazy { refuse, as_stored, resolve };

struct Array {
  void* data;
  std::int64_t numel;
  const std::int64_t* shape;
  const std::int64_t* stride;  // elements; null: C-contiguous
  int ndim;
  int device;  // of CUDA; kHost: memory of the CPU
  Format format;
  bool is_complex;        // pairs of it
  const char* read_only;  // why it must not be written, or null
  bool contiguous;        // in row-major order

  std::string shape_text() const;
  std::string dtype_text() const;
  std::string device_text() const;
};
inline constexpr int kHost = -1;

// Reads arrays for one call and keeps what they need alive until it is destroyed.
class Reader {
 public:
  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader();

  // Throws TypeError or ValueError naming `where`. Accepts float32, float64 and complex of them, on the CPU or a CUDA
  // device, aligned.
  Array read(PyObject* object, const Where& where, Lazy lazy = Lazy::refuse);
  // One number, without the questions that only tensors with gradients in them need.
  Array read_scalar(PyObject* object, const Where& where);

  // The CUDA stream to work on: the one given, else the current one of the library whose arrays were read first, else
  // the legacy default stream.
  void use_stream(const py::object& address);  // None: not given
  std::vector<std::pair<int, void*>> streams() const { return {streams_.begin(), streams_.end()}; }

 private:
  Array fetch(PyObject* object, const TypeFacts& facts, const Where& where);
  Array from_exchange(PyObject* object, const TypeFacts& facts, const Where& where);
  Array from_attributes(PyObject* object, const Where& where);
  Array from_buffer(PyObject* object, const Where& where);
  Array from_capsule(PyObject* object, const Where& where);
  Array from_dlpack(PyObject* object, const dlpack::Tensor& t, const Where& where);
  Array resolved(PyObject* object, const Where& where, const Array& a, Lazy lazy);
  void note_stream(const TypeFacts& facts, const Array& a);

  std::deque<std::vector<std::int64_t>> dims_;
  std::deque<Py_buffer> buffers_;
  std::vector<py::object> keep_;
  std::map<int, void*> streams_;  // per device
  std::optional<void*> given_stream_;
};

// A number that a call reads: on the host its value, on a device its address.
struct Number {
  double value;
  Scalar at;
  int device = kHost;
};
Number read_number(Reader& reader, PyObject* object, const Where& where);

// Off: torch tensors are read through their attributes, as with a torch that has no exchange API. For tests.
void set_exchange_api(bool on);

// Not null: says which CUDA device memory counts as lying on, or kHost, told whether one number is meant; and what the
// current stream is. For the build that runs the CUDA kernels on the CPU.
void set_placement(int (*device_of)(const void* data, bool is_scalar), void* (*stream_of)(int device));

// Errors about an array that is written: read-only, or elements that share memory.
void check_writable(const Array& a, const Where& where);
// Errors for complex numbers, which have no order to clip by.
void check_ordered(const Array& a, const Where& where);
// Errors unless both are on the CPU, or both on CUDA devices: one call does not wait for the other kind.
void check_one_kind(const Array& a, const Where& where, const Array& first);
// Errors unless dtype and shape equal those of the parameter.
void check_matches(const Array& a, const Where& where, const Array& param);

}  // namespace fusedstep
