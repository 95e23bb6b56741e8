#include "register.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "fusedstep's compiled core; see the functional, numpy and torch modules for what to call.";
  fusedstep::register_info(m);
  fusedstep::register_step(m);
  fusedstep::register_clip(m);
#ifdef FS_CUDA_ON_HOST
  fusedstep::register_cuda_host(m);
#endif
}
