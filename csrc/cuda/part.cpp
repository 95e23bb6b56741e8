#include "part.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>
#include <utility>

#include "run.h"
#include "tables.h"

namespace fusedstep::cuda {

bool takes_part(const Call& call, int device) {
  const bool told = call.does(kMeasure) || (call.report && call.found_inf.at.at);
  return (told && call.norm_out && device == call.result_device) ||
         std::any_of(call.tensors.begin(), call.tensors.end(),
                     [device](const Tensor& t) { return t.device == device; });
}

Part::Part(const Call& call, int device, cudaStream_t stream)
    : device(device), stream(stream), keeps_tables_(!is_capturing(device, stream)) {
  const RelaxedCapture relaxed;
  has_finish = call.does(kFold) || call.grad_scale.at.at || call.skips || (call.report && call.found_inf.at.at);
  for (const Tensor& t : call.tensors) {
    const Options& o = call.options[t.options];
    if (t.device == device) {
      has_finish = has_finish || t.step_at.at || t.has_scalars() || t.two_passes || o.lr.at || o.has_scalars();
    }
  }
  finish.head() = FinishHead{};
  stats.head() = StatsHead{};
  if (call.does(kApply)) add_batches(call, add_uniforms(call));
  if (call.does(kMeasure)) add_norm_batches(call);
  for (const Options& o : call.options) append(options_, o);
  place_tables(call);
  reserve(call);
  fill_heads(call);
}

// One record per run of tensors that share everything; the index for each tensor.
std::vector<std::uint32_t> Part::add_uniforms(const Call& call) {
  std::vector<std::uint32_t> uniform_of(call.tensors.size());
  const Tensor* last = nullptr;
  std::int32_t advance = -1;
  for (std::size_t i = 0; i < call.tensors.size(); ++i) {
    const Tensor& t = call.tensors[i];
    if (t.device != device) continue;
    if (!last || last->options != t.options) {
      advance = -1;
      if (call.options[t.options].has_scalars()) {
        advance = static_cast<std::int32_t>(finish.head().advance_count++);
        append(advances_, Advance{t.options, static_cast<std::uint32_t>(t.rule)});
      }
    }
    if (!last || !same_numbers(*last, t) || (call.per_tensor && (t.normed() || last->normed()))) {
      ++uniform_count_;
      if (has_finish) {
        Record record{t.step_at, t.step, t.options, advance, t.sum, static_cast<std::uint8_t>(t.rule), t.compute};
        std::copy(std::begin(t.scalars), std::end(t.scalars), record.scalars);
        append(records_, record);
      } else {
        UniformBytes uniform{};
        prepare(t.rule, t.compute, call.options[t.options].host, 0.0, t.step, uniform);
        append(uniforms_, uniform);
      }
    }
    uniform_of[i] = uniform_count_ - 1;
    last = &t;
  }
  return uniform_of;
}

void Part::add_batches(const Call& call, const std::vector<std::uint32_t>& uniform_of) {
  std::map<std::tuple<int, Compute, bool, bool>, Batch*> batch_of;
  for (std::uint32_t i = 0; i < call.tensors.size(); ++i) {
    const Tensor& t = call.tensors[i];
    if (t.device != device) continue;
    Batch*& batch = batch_of[{t.rule, t.compute, is_mixed(t) && !t.rides, t.rides}];
    if (!batch) batch = &batches.emplace_back(t);
    batch->tensors.push_back(i);
  }
  for (Batch& batch : batches) {
    batch.build(call, uniform_of);
    if (batch.rides) add_rows(call, batch);
    if (!batch.two_passes) continue;
    batch.first_sum = rule_sums_;
    std::uint32_t chunk = rule_sums_;
    for (const std::uint32_t i : batch.tensors) {
      const Tensor& t = call.tensors[i];
      const auto chunks = static_cast<std::uint32_t>(chunks_of(t.numel));
      append(scaled_, Scaled{t.numel, chunk, chunks, batch.chunks(), uniform_of[i]});
      ++finish.head().scaled_count;
      chunk += chunks;
    }
    rule_sums_ += kMaxSums * batch.chunks();
  }
}

// What is to become of the statistics of each chunk.
void Part::add_rows(const Call& call, Batch& batch) {
  batch.first_sum = stats_;
  std::uint32_t chunk = stats_;
  for (const std::uint32_t i : batch.tensors) {
    const Tensor& t = call.tensors[i];
    const auto chunks = static_cast<std::uint32_t>(chunks_of(t.numel));
    if (t.stats >= 0) {
      append(rows_, StatsRow{chunk, chunks, batch.chunks(), static_cast<std::uint32_t>(t.stats)});
      ++stats.head().count;
    }
    chunk += chunks;
  }
  if (stats.head().count > 0) stats_ += kStats * batch.chunks();
}

// Large tensors first: those are folded by the whole block.
void Part::add_norm_batches(const Call& call) {
  NormBatch* batch_of[kComputes][2] = {};
  for (std::uint32_t i = 0; i < call.tensors.size(); ++i) {
    const Tensor& t = call.tensors[i];
    if (t.device != device || !t.normed()) continue;
    const Compute compute = compute_type(t.stream[1].format);
    const bool masked = t.kept_by() != nullptr;
    NormBatch*& batch = batch_of[static_cast<int>(compute)][masked];
    if (!batch) batch = &norm_batches.emplace_back(compute, masked);
    batch->tensors.push_back(i);
  }
  std::vector<Fold> folds;
  for (NormBatch& batch : norm_batches) {
    batch.build(call);
    batch.first_sum = chunk_sums_;
    for (const std::uint32_t i : batch.tensors) {
      const Tensor& t = call.tensors[i];
      const auto chunks = static_cast<std::uint32_t>(chunks_of(t.numel));
      folds.push_back({chunk_sums_, chunks, static_cast<std::uint32_t>(t.sum)});
      chunk_sums_ += chunks;
    }
  }
  const auto small =
      std::stable_partition(folds.begin(), folds.end(), [](const Fold& f) { return f.count > kWarpFold; });
  finish.head().fold_count = static_cast<std::uint32_t>(folds.size());
  finish.head().large = static_cast<std::uint32_t>(small - folds.begin());
  for (const Fold& f : folds) append(folds_, f);
}

template <class Head>
void Part::place(Packed<Head>& args, Ref& ref, const std::vector<std::byte>& bytes, bool stays) {
  if (args.inlined(bytes, ref)) return;
  if (stays && keeps_tables_) {
    if (const auto kept = kept_copy(bytes, stream)) {
      ref.device = kept.get();
      tables_.push_back(kept);
      return;
    }
  }
  uploads_.push_back({bytes, room_.add(bytes.size()), &ref});
}

template <class Head>
void Part::place(Table<Head>& table) {
  place(table.args, table.args.head().grads, table.grads, false);
  place(table.args, table.args.head().entries, table.entries, true);
}

// Asks for every kernel too: those that this device cannot run fail here.
void Part::place_tables(const Call& call) {
  if (has_finish) {
    FinishHead& head = finish.head();
    place(finish, head.options, options_, false);
    place(finish, head.records, records_, false);
    place(finish, head.advances, advances_, false);
    place(finish, head.scaled, scaled_, true);
    place(finish, head.folds, folds_, true);
    resident_blocks(finish.fitting(finish_kernel()), device, kFinishThreads);
  }
  for (Batch& batch : batches) {
    if (!has_finish) place(batch.args, batch.args.head().uniforms, uniforms_, false);
    place(batch);
    resident_blocks(batch.kernel(), device);
    if (batch.two_passes) resident_blocks(batch.args.fitting(measure_kernel_of(batch.rule, batch.compute)), device);
  }
  for (NormBatch& batch : norm_batches) {
    place(batch);
    resident_blocks(batch.args.fitting(norm_kernel_of(norm_of(call.norm_type), batch.compute, batch.masked)), device);
  }
  if (stats.head().count > 0) {
    place(stats, stats.head().rows, rows_, true);
    resident_blocks(stats_kernel(), device, kFinishThreads);
  }
  if (!uploads_.empty()) resident_blocks(fill_kernel(), device);
}

// Memory, and what the finish kernel is told of it and of the call. A step that knows all its numbers beforehand needs
// none.
void Part::reserve(const Call& call) {
  const Number numbers[] = {call.grad_scale, call.found_inf, call.given_norm};
  const bool copies = std::any_of(std::begin(numbers), std::end(numbers), [this](const Number& n) { return lacks(n); });
  const std::size_t norms = call.does(kFold) ? std::max<std::size_t>(1, call.sums) : 0;
  const std::size_t chunk_sums = room_.add(chunk_sums_ * sizeof(double));
  const std::size_t rule_sums = room_.add(rule_sums_ * sizeof(double));
  const std::size_t chunk_stats = room_.add(stats_ * sizeof(double));
  const std::size_t tensor_sums = room_.add(norms * sizeof(double));
  const std::size_t norm = room_.add(norms * sizeof(double));
  const std::size_t uniforms = room_.add(has_finish ? uniform_count_ * sizeof(UniformBytes) : 0);
  const std::size_t groups = room_.add(finish.head().advance_count * sizeof(GroupScalars));
  const std::size_t skip = room_.add(call.skips_there() ? sizeof(double) : 0);
  const std::size_t copied = room_.add(copies ? std::size(numbers) * sizeof(double) : 0);
  scratch = Scratch(room_.size(), stream);
  for (const Upload& u : uploads_) u.ref->device = scratch.at(u.offset);

  FinishHead& head = finish.head();
  const auto doubles = [this](std::size_t offset) { return reinterpret_cast<double*>(scratch.at(offset)); };
  const bool tells = device == call.result_device;
  head.chunk_sums = doubles(chunk_sums);
  head.sums = doubles(tensor_sums);
  head.rule_sums = doubles(rule_sums);
  head.norm = tells && call.norm_out ? call.norm_out : doubles(norm);
  head.uniforms = reinterpret_cast<UniformBytes*>(scratch.at(uniforms));
  head.groups = reinterpret_cast<GroupScalars*>(scratch.at(groups));
  head.report = tells ? call.report : nullptr;
  head.skip = call.skips_there() ? doubles(skip) : nullptr;
  Scalar* const to[] = {&head.grad_scale, &head.found_inf, &head.given_norm};
  for (std::size_t k = 0; k < std::size(numbers); ++k) {
    *to[k] = numbers[k].at;
    if (lacks(numbers[k])) to[k]->at = scratch.at(copied + k * sizeof(double));
  }
  head.scale = call.grad_scale.value;
  head.least_max_norm = call.least_max_norm;
  head.sum_count = call.sums;
  head.record_count = uniform_count_;
  head.kind = norm_of(call.norm_type);
  head.per_tensor = call.per_tensor;
  head.has_norm = call.does(kMeasure);
  head.skips = call.skips;
  stats.head().sums = doubles(chunk_stats);
  stats.head().out = call.stats;
  head.skip_nonfinite = call.skips_nonfinite();
}

void Part::fill_heads(const Call& call) {
  const FinishHead& finished = finish.head();
  StatsHead& told = stats.head();
  told.grad_scale = finished.grad_scale;
  told.scale = finished.scale;
  told.found_inf = finished.skip ? Scalar{finished.skip, true} : finished.found_inf;
  for (Batch& batch : batches) {
    StepHead& head = batch.args.head();
    if (has_finish) head.uniforms.device = finished.uniforms;
    head.sums = (batch.rides ? told.sums : finished.rule_sums) + batch.first_sum;
    head.found_inf = finished.skip ? Scalar{finished.skip, true} : finished.found_inf;
    head.reverse = call.does(kMeasure);
  }
  for (NormBatch& batch : norm_batches) batch.args.head().sums = finished.chunk_sums + batch.first_sum;
}

void Part::upload() {
  for (const Upload& u : uploads_) fill(scratch.at(u.offset), u.bytes, stream);
  uploads_.clear();
}

}  // namespace fusedstep::cuda
