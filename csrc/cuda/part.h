// What one device does in a call: its batches, memory, tables and arguments, all of it known before the first launch.
#pragma once
#include <deque>
#include <memory>
#include <vector>

#include "../call/call.h"
#include "batch.h"
#include "runtime.h"

namespace fusedstep::cuda {

// Whether the call has work for this device, or is to tell it the norm or of a skipped step. Another device may still
// hold a number that is read.
bool takes_part(const Call& call, int device);

struct Part {
  // On its device.
  Part(const Call& call, int device, cudaStream_t stream);

  bool lacks(const Number& n) const { return n.at.at && n.device != device; }
  // Fills what is filled by the host, but for the numbers that are on another device.
  void upload();

  int device;
  cudaStream_t stream;
  std::deque<Batch> batches;
  std::deque<NormBatch> norm_batches;
  bool has_finish;  // the finish kernel runs
  Packed<FinishHead> finish;
  Packed<StatsHead> stats;  // count 0: nobody asks
  Scratch scratch;

 private:
  std::vector<std::uint32_t> add_uniforms(const Call& call);
  void add_batches(const Call& call, const std::vector<std::uint32_t>& uniform_of);
  void add_rows(const Call& call, Batch& batch);
  void add_norm_batches(const Call& call);
  void place_tables(const Call& call);
  void reserve(const Call& call);
  void fill_heads(const Call& call);
  template <class Head>
  void place(Table<Head>& table);
  template <class Head>
  void place(Packed<Head>& args, Ref& ref, const std::vector<std::byte>& bytes, bool stays);

  bool keeps_tables_;  // not in a capture
  std::vector<std::byte> folds_, records_, options_, advances_, scaled_, uniforms_, rows_;
  std::uint32_t chunk_sums_ = 0, rule_sums_ = 0, stats_ = 0, uniform_count_ = 0;
  Room room_;
  std::vector<Upload> uploads_;
  std::vector<std::shared_ptr<const void>> tables_;  // kept copies in use
};

}  // namespace fusedstep::cuda
