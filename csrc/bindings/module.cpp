#include "../call/array.h"
#include "register.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "fusedstep's compiled core; see the functional, numpy and torch modules for what to call.";
  pybind11::register_local_exception_translator([](std::exception_ptr error) {
    try {
      std::rethrow_exception(error);
    } catch (const fusedstep::TypeError& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    }
  });
  fusedstep::register_info(m);
  fusedstep::register_step(m);
  fusedstep::register_clip(m);
  fusedstep::register_formats(m);
#ifdef FS_CUDA_ON_HOST
  fusedstep::register_cuda_host(m);
#endif
}
