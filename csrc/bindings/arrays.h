// Arrays in: NumPy through the buffer protocol, torch through the DLPack C exchange API (or attributes where a torch is
// too old to have it), anything else through __dlpack__. The ways in are in readers.cpp.
// Nothing is cached between calls but facts about types, so no address can be stale.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "../call/array.h"
#include "dlpack.h"

namespace fusedstep {

namespace py = pybind11;

struct TypeFacts;

// What becomes of a torch tensor whose values are the negative or the conjugate of what its memory holds: an error; its
// memory as it is, where signs do not matter; or a tensor made of its values.
enum class Lazy { refuse, as_stored, resolve };

// Reads arrays for one call and keeps what they need alive until it is destroyed.
class Reader {
 public:
  Reader() = default;
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;
  ~Reader();

  // Throws TypeError or ValueError naming `where`. Accepts float32, float64, complex of them, bfloat16 and float16, on
  // the CPU or a CUDA device, aligned.
  Array read(PyObject* object, const Where& where, Lazy lazy = Lazy::refuse);
  // An array of bool.
  Array read_mask(PyObject* object, const Where& where);
  // One number, without the questions that only tensors with gradients in them need.
  // `beside_tensor`: it lies where its tensor does (a build for tests pretends where memory is).
  Array read_scalar(PyObject* object, const Where& where, bool beside_tensor = false);

  // The CUDA stream to work on: the one given, else the current one of the library whose arrays were read first, else
  // the legacy default stream.
  void use_stream(const py::object& address);  // None: not given
  std::vector<std::pair<int, void*>> streams() const { return {streams_.begin(), streams_.end()}; }

 private:
  // Of a DTensor its shard here, which is kept.
  PyObject* local(PyObject* object);
  Array read_any(PyObject* object, const Where& where, Lazy lazy);
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

// A torch DTensor: what is read of it is its shard here.
bool is_sharded(PyObject* object);

// Whether arrays are placed as their parameter is.
class Placement {
 public:
  // That of a parameter, for what is checked from now on.
  void set(PyObject* param);
  // Errors unless both are plain, or DTensors with the same placements on the same mesh. `index`: of the parameter.
  void check(PyObject* object, PyObject* param, const Where& where, std::int64_t index);

 private:
  bool sharded_ = false;
  py::object spec_;        // of the parameter
  py::object like_, its_;  // two that were found alike: arrays of state of one shape share theirs
};

// A float, or one number in an array.
Number read_number(Reader& reader, PyObject* object, const Where& where);

// Off: torch tensors are read through their attributes, as with a torch that has no exchange API. For tests.
void set_exchange_api(bool on);

// Not null: says which CUDA device memory counts as lying on, or kHost, told whether one number is meant; and what the
// current stream is. For the build that runs the CUDA kernels on the CPU.
void set_placement(int (*device_of)(const void* data, bool is_scalar), void* (*stream_of)(int device));

}  // namespace fusedstep
