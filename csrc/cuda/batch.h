// The tensors of one call on one device, as kernel arguments and device memory.
#pragma once
#include <memory>
#include <vector>

#include "../call/call.h"
#include "launch.h"

namespace fusedstep::cuda {

// Offsets into one allocation, made when everything that needs room has asked.
class Room {
 public:
  std::size_t add(std::size_t bytes) {
    const std::size_t offset = size_;
    size_ += (bytes + 255) / 256 * 256;
    return offset;
  }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_ = 0;
};

// Bytes that did not fit into an argument: where they go, and what is to point at them.
struct Upload {
  std::vector<std::byte> bytes;
  std::size_t offset;
  Ref* ref;
};

// Arguments of a launch as they fill up.
template <class Head>
class Packed {
 public:
  Packed() : args_(new Args<Head, kLargeArgs>) {}
  Head& head() { return args_->head; }
  const Head& head() const { return args_->head; }
  // The one for as many bytes of arguments as there are.
  const Kernel& fitting(const KernelPair& kernels) const {
    return used_ <= sizeof(Args<Head, kSmallArgs>::bytes) ? kernels.small : kernels.large;
  }
  const void* data() const { return args_.get(); }

  // Into the argument, if there is room; else false.
  bool inlined(const std::vector<std::byte>& bytes, Ref& ref) {
    if (used_ + bytes.size() > sizeof args_->bytes) return false;
    ref = {nullptr, static_cast<std::uint32_t>(used_)};
    std::copy(bytes.begin(), bytes.end(), args_->bytes + used_);
    used_ += (bytes.size() + 15) / 16 * 16;
    return true;
  }

 private:
  std::unique_ptr<Args<Head, kLargeArgs>> args_;
  std::size_t used_ = 0;
};

template <class T>
void append(std::vector<std::byte>& to, const T& value) {
  const auto* bytes = reinterpret_cast<const std::byte*>(&value);
  to.insert(to.end(), bytes, bytes + sizeof value);
}

// Tensors of one device that a launch takes.
template <class Head>
struct Table {
  std::vector<std::uint32_t> tensors;  // indices into the call's
  std::vector<std::byte> entries, grads;
  Packed<Head> args;

  std::uint32_t chunks() const { return args.head().chunks; }
};

// Those of one rule and one compute type: with all of which something rides along, or with none; of these, all are
// stored as it is computed with, or none.
struct Batch : Table<StepHead> {
  int rule;
  Compute compute;
  bool mixed, two_passes, rides;
  std::uint32_t first_sum = 0;  // of this device's sums of rules, or of its statistics

  explicit Batch(const Tensor& t)
      : rule(t.rule), compute(t.compute), mixed(is_mixed(t)), two_passes(t.two_passes), rides(t.rides) {}
  const Kernel& kernel() const {
    return rides ? ride_kernel_of(rule, compute) : args.fitting(step_kernel_of(rule, compute, mixed));
  }
  void build(const Call& call, const std::vector<std::uint32_t>& uniform_of);
};

// Those that are part of the norm, and whose gradients share a compute type, all of them masked, or none.
struct NormBatch : Table<NormHead> {
  Compute compute;
  bool masked;
  std::uint32_t first_sum = 0;  // of this device's chunk sums

  NormBatch(Compute compute, bool masked) : compute(compute), masked(masked) {}
  void build(const Call& call);
};

}  // namespace fusedstep::cuda
