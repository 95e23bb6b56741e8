// What is not stored as it is computed with, or does not lie side by side, passes through a tile in L1: decoded from
// each stream, put through the kernel of the compute type, encoded back.
#pragma once
#include "table.h"

namespace fusedstep {
namespace {

template <class F, class T>
void decode(const void* from, std::int64_t stride, std::int64_t n, void* to) {
  F::decode(from, stride, n, static_cast<T*>(to));
}

template <class F, class T>
void encode(const void* from, std::int64_t n, void* to, std::int64_t stride) {
  F::encode(static_cast<const T*>(from), n, to, stride);
}

}  // namespace
}  // namespace fusedstep
