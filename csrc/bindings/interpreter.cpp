#include "interpreter.h"

namespace fusedstep {

int torch_threads() {
  static PyObject* const torch_name = PyUnicode_InternFromString("torch");
  static PyObject* function = nullptr;  // kept for ever, like torch itself
  if (!function) {
    PyObject* const torch = PyDict_GetItemWithError(PyImport_GetModuleDict(), torch_name);
    if (torch) function = PyObject_GetAttrString(torch, "get_num_threads");  // not there while torch is being imported
    if (!function) {
      PyErr_Clear();
      return 0;
    }
  }
  PyObject* const number = PyObject_CallNoArgs(function);
  const long threads = number ? PyLong_AsLong(number) : -1;
  Py_XDECREF(number);
  if (threads < 1) PyErr_Clear();
  return threads < 1 ? 0 : static_cast<int>(threads);
}

}  // namespace fusedstep
