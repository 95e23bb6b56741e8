// A number that may live on a device.
#pragma once
#include "../rules/rule.h"

#ifndef __CUDACC__
#define FS_DEVICE
#else
#define FS_DEVICE __device__ __forceinline__
#endif

namespace fusedstep {

// Its address, as float32 or float64; null where there is none. To be read and written where it is.
struct Scalar {
  void* at = nullptr;
  bool wide = false;

  std::size_t bytes() const { return wide ? sizeof(double) : sizeof(float); }
  FS_DEVICE double read() const { return wide ? *static_cast<double*>(at) : double(*static_cast<float*>(at)); }
  FS_DEVICE void write(double x) const {
    if (wide) {
      *static_cast<double*>(at) = x;
    } else {
      *static_cast<float*>(at) = static_cast<float>(x);
    }
  }
};

// Those of an array that there are: the ones before the first null.
template <int N>
FS_DEVICE ScalarValues<N> read_all(const Scalar (&scalars)[N]) {
  ScalarValues<N> out{};
  for (int k = 0; k < N && scalars[k].at; ++k) {
    out.at[k] = scalars[k].read();
    out.wide[k] = scalars[k].wide;
  }
  return out;
}

// The device of what is in memory of the CPU.
inline constexpr int kHost = -1;

// A number that a call reads: on the host its value, on a device its address.
struct Number {
  double value = 0.0;
  Scalar at = {};
  int device = kHost;
};

}  // namespace fusedstep
