#pragma once
#include <pybind11/pybind11.h>

namespace fusedstep {

void register_info(pybind11::module_& m);
void register_step(pybind11::module_& m);
void register_clip(pybind11::module_& m);
void register_formats(pybind11::module_& m);
#ifdef FS_CUDA_ON_HOST
void register_cuda_host(pybind11::module_& m);
#endif

}  // namespace fusedstep
