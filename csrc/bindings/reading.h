// How arrays of one Python type are read: what arrays.cpp knows of a type and readers.cpp goes by.
#pragma once
#include "arrays.h"

namespace fusedstep {

// Types are kept for ever: there are a handful.
struct TypeFacts {
  PyTypeObject* type;
  enum Kind { exchange, attributes, buffer, capsule, sharded, subclass, masked, unknown } kind;
  const dlpack::ExchangeApi* api;
};

inline constexpr const char* kOutside =
    ", expected a plain tensor: of torch.func, vmap and tracing, call this outside the transform";

// Throws TypeError. `name`: of the dtype, where the object has none.
[[noreturn]] void wrong_dtype(PyObject* object, const Where& where, std::string name = "", bool is_mask = false);

inline std::string type_name(PyObject* object) { return Py_TYPE(object)->tp_name; }

}  // namespace fusedstep
