// What is not stored as it is computed with, or does not lie side by side, passes through a tile in L1: decoded from
// each stream, put through the kernel of the compute type, encoded back.
#pragma once
#include "table.h"

namespace fusedstep {
namespace {

template <class F>
void decode(const void* from, std::int64_t stride, std::int64_t n, void* to) {
  F::decode(from, stride, n, static_cast<typename F::Value*>(to));
}

template <class F>
void encode(const void* from, std::int64_t n, void* to, std::int64_t stride, const Place& place) {
  F::encode(static_cast<const typename F::Value*>(from), n, to, stride, place);
}

}  // namespace
}  // namespace fusedstep
