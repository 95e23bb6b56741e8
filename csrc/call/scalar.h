// A number that may live on a device.
#pragma once
#include "../base.h"

#ifndef __CUDACC__
#define FS_DEVICE
#else
#define FS_DEVICE __device__ __forceinline__
#endif

namespace fusedstep {

// Its address there, as float32 or float64; null where the host has it.
struct Scalar {
  void* at = nullptr;
  bool wide = false;

  FS_DEVICE double read() const { return wide ? *static_cast<double*>(at) : double(*static_cast<float*>(at)); }
  FS_DEVICE void write(double x) const {
    if (wide) {
      *static_cast<double*>(at) = x;
    } else {
      *static_cast<float*>(at) = static_cast<float>(x);
    }
  }
};

}  // namespace fusedstep
