#include "run.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "batch.h"

namespace fusedstep::cuda {
namespace {

// What one device does.
struct Part {
  int device;
  cudaStream_t stream;
  bool kept_tables;  // not in a capture
  std::vector<std::unique_ptr<Batch>> batches;
  bool has_finish = false;  // the finish kernel runs
  std::vector<std::byte> folds, records, options, uniforms;
  std::uint32_t chunk_sums = 0, uniform_count = 0;
  Packed<FinishHead> finish;
  Room room;
  std::vector<Upload> uploads;
  std::vector<std::shared_ptr<const void>> tables;  // kept copies in use
  Scratch scratch;

  template <class Head>
  void place(Packed<Head>& args, Ref& ref, const std::vector<std::byte>& bytes, bool stays) {
    if (args.inlined(bytes, ref)) return;
    if (stays && kept_tables) {
      if (const auto kept = kept_copy(bytes, stream)) {
        ref.device = kept.get();
        tables.push_back(kept);
        return;
      }
    }
    uploads.push_back({bytes, room.add(bytes.size()), &ref});
  }
};

}  // namespace

std::string built_with() {
  int version = 0;
#ifdef FS_CUDA_ON_HOST
  return "host";
#endif
  cudaRuntimeGetVersion(&version);
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();
  return 0;
}

bool is_capturing(int device, void* stream) {
  const DeviceGuard guard(device);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  FS_CUDA(cudaStreamIsCapturing, static_cast<cudaStream_t>(stream), &status);
  return status != cudaStreamCaptureStatusNone;
}

double read(const Scalar& scalar, int device, void* stream) {
  const DeviceGuard guard(device);
  double wide = 0.0;
  float narrow = 0.0f;
  void* const to = scalar.wide ? static_cast<void*>(&wide) : &narrow;
  const auto s = static_cast<cudaStream_t>(stream);
  FS_CUDA(cudaMemcpyAsync, to, scalar.at, scalar.wide ? sizeof wide : sizeof narrow, cudaMemcpyDeviceToHost, s);
  FS_CUDA(cudaStreamSynchronize, s);
  return scalar.wide ? wide : narrow;
}

struct Run::Impl {
  Call call;
  std::vector<Part> parts;           // one per device
  std::vector<std::int32_t> sum_of;  // of each tensor, -1: not part of the norm
  std::uint32_t sum_count = 0;
  bool sums_done = false, norm_done = false;

  explicit Impl(Call c) : call(std::move(c)) {
    for (const Work& w : call.work) sum_of.push_back(w.normed ? static_cast<std::int32_t>(sum_count++) : -1);
    for (const auto& [device, stream] : call.streams) {
      if (!takes_part(device)) continue;
      const DeviceGuard guard(device);
      Part& part = parts.emplace_back();
      part.device = device;
      part.stream = static_cast<cudaStream_t>(stream);
      part.kept_tables = !is_capturing(device, stream);
      const RelaxedCapture relaxed;
      plan(part);
    }
  }

  // Has tensors, or is to be given the norm or told of a skipped step. Other devices may hold a number that is read.
  bool takes_part(int device) const {
    const bool told = call.has_norm || (call.report && call.found_inf.at);
    return (told && call.norm_out && device == call.norm_device) ||
           std::any_of(call.work.begin(), call.work.end(), [device](const Work& w) { return w.device == device; });
  }

  // Copies on the part's device of what lives on another one.
  bool is_elsewhere(const Part& part, const Scalar& s) const { return s.at && part.device != call.scalar_device; }

  void plan(Part& part) {
    part.has_finish =
        call.has_norm || call.given_norm.at || call.grad_scale.at || call.skips || (call.report && call.found_inf.at);
    for (const Work& w : call.work) {
      if (w.device != part.device) continue;
      part.has_finish = part.has_finish || w.step_at.at || call.options[w.options].lr.at;
    }
    const std::vector<std::uint32_t> uniform_of = add_uniforms(part);
    std::map<std::pair<int, DType>, Batch*> batch_of;
    for (std::uint32_t i = 0; i < call.work.size(); ++i) {
      const Work& w = call.work[i];
      if (w.device != part.device) continue;
      Batch*& batch = batch_of[{w.tensor.rule, w.tensor.compute}];
      if (!batch) {
        batch = part.batches.emplace_back(std::make_unique<Batch>()).get();
        batch->rule = w.tensor.rule;
        batch->dtype = w.tensor.compute;
      }
      batch->works.push_back(i);
    }
    for (const auto& batch : part.batches) {
      batch->build(call, uniform_of, sum_of);
      batch->first_sum = part.chunk_sums;
      part.chunk_sums += batch->chunks;
    }
    add_folds(part);
    reserve(part);
  }

  // One record per run of tensors that share everything; the index for each tensor.
  std::vector<std::uint32_t> add_uniforms(Part& part) {
    std::vector<std::uint32_t> uniform_of(call.work.size());
    const Work* last = nullptr;
    for (std::size_t i = 0; i < call.work.size(); ++i) {
      const Work& w = call.work[i];
      if (w.device != part.device) continue;
      const bool own = (call.per_tensor && w.normed) || w.step_at.at;
      if (!last || own || last->step_at.at || (call.per_tensor && last->normed) || last->options != w.options ||
          last->step != w.step || last->tensor.rule != w.tensor.rule || last->tensor.compute != w.tensor.compute) {
        ++part.uniform_count;
        if (part.has_finish) {
          append(part.records, Record{w.step_at, w.step, w.options, sum_of[i], static_cast<std::uint8_t>(w.tensor.rule),
                                      w.tensor.compute});
        } else {
          UniformBytes uniform{};
          prepare_any(AllRules{}, w.tensor.rule, w.tensor.compute, call.options[w.options].host, 0.0, w.step,
                      uniform.bytes);
          append(part.uniforms, uniform);
        }
      }
      uniform_of[i] = part.uniform_count - 1;
      last = &w;
    }
    return uniform_of;
  }

  // Large tensors first: those are folded by the whole block.
  void add_folds(Part& part) {
    std::vector<Fold> folds;
    for (const auto& batch : part.batches) {
      std::int64_t chunk = batch->first_sum;
      for (const std::uint32_t i : batch->works) {
        const std::int64_t chunks = (call.work[i].tensor.numel + kChunk - 1) / kChunk;
        if (call.work[i].normed) {
          folds.push_back({static_cast<std::uint32_t>(chunk), static_cast<std::uint32_t>(chunks),
                           static_cast<std::uint32_t>(sum_of[i])});
        }
        chunk += chunks;
      }
    }
    const auto small =
        std::stable_partition(folds.begin(), folds.end(), [](const Fold& f) { return f.count > kWarpFold; });
    FinishHead& head = part.finish.head();
    head = FinishHead{};
    head.fold_count = static_cast<std::uint32_t>(folds.size());
    head.large = static_cast<std::uint32_t>(small - folds.begin());
    for (const Fold& f : folds) append(part.folds, f);
    for (const DeviceOptions& o : call.options) append(part.options, o);
  }

  // Memory, tables and addresses.
  void reserve(Part& part) {
    // A step that knows all its numbers beforehand needs none.
    const std::size_t norms = call.has_norm || call.given_norm.at ? std::max<std::size_t>(1, sum_count) : 0;
    const std::size_t chunk_sums = part.room.add(call.has_norm ? part.chunk_sums * sizeof(double) : 0);
    const std::size_t sums = part.room.add(norms * sizeof(double));
    const std::size_t norm = part.room.add(norms * sizeof(double));
    const std::size_t uniforms = part.room.add(part.has_finish ? part.uniform_count * sizeof(UniformBytes) : 0);
    const std::size_t skip = part.room.add(call.skip_nonfinite ? sizeof(double) : 0);
    const std::size_t scalars = part.room.add(part.device == call.scalar_device ? 0 : 3 * sizeof(double));

    FinishHead& finish = part.finish.head();
    if (part.has_finish) {
      part.place(part.finish, finish.options, part.options, false);
      part.place(part.finish, finish.records, part.records, false);
      part.place(part.finish, finish.folds, part.folds, true);
      resident_blocks(finish_kernel_of(part), part.device, kFinishThreads);
    }
    for (const auto& batch : part.batches) {
      BatchHead& head = batch->args.head();
      head = BatchHead{};
      if (!part.has_finish) part.place(batch->args, head.uniforms, part.uniforms, false);
      part.place(batch->args, head.grads, batch->grads, false);
      part.place(batch->args, head.entries, batch->entries, true);
      if (call.steps) resident_blocks(pick(*batch, step_kernel_of(batch->rule, batch->dtype)), part.device);
      if (batch->normed) resident_blocks(pick(*batch, norm_kernel_of(call.norm, batch->dtype)), part.device);
    }
    if (!part.uploads.empty()) resident_blocks(fill_kernel(), part.device);
    part.scratch = Scratch(part.room.size(), part.stream);
    for (const Upload& u : part.uploads) u.ref->device = part.scratch.at(u.offset);

    finish.chunk_sums = reinterpret_cast<double*>(part.scratch.at(chunk_sums));
    finish.sums = reinterpret_cast<double*>(part.scratch.at(sums));
    finish.norm = reinterpret_cast<double*>(part.scratch.at(norm));
    if (call.norm_out && part.device == call.norm_device) finish.norm = call.norm_out;
    finish.uniforms = reinterpret_cast<UniformBytes*>(part.scratch.at(uniforms));
    finish.grad_scale = call.grad_scale;
    finish.found_inf = call.found_inf;
    finish.given_norm = call.given_norm;
    Scalar* const copied[] = {&finish.grad_scale, &finish.found_inf, &finish.given_norm};
    for (int k = 0; k < 3; ++k) {
      if (is_elsewhere(part, *copied[k])) copied[k]->at = part.scratch.at(scalars + k * sizeof(double));
    }
    finish.scale = call.scale;
    finish.sum_count = sum_count;
    finish.record_count = part.uniform_count;
    finish.kind = call.norm;
    finish.per_tensor = call.per_tensor;
    finish.has_norm = call.has_norm;
    finish.skips = call.skips;
    finish.skip_nonfinite = call.skip_nonfinite;
    finish.least_max_norm = call.least_max_norm;
    if (part.device == call.norm_device) finish.report = call.report;
    if (call.skip_nonfinite) finish.skip = reinterpret_cast<double*>(part.scratch.at(skip));
    for (const auto& batch : part.batches) {
      BatchHead& head = batch->args.head();
      if (part.has_finish) head.uniforms.device = finish.uniforms;
      head.sums = finish.chunk_sums + batch->first_sum;
      head.found_inf = finish.skip ? Scalar{finish.skip, true} : finish.found_inf;
      head.tensors = static_cast<std::uint32_t>(batch->works.size());
      head.chunks = batch->chunks;
      head.one_each = batch->one_each;
      head.reverse = call.has_norm;
    }
  }

  static const Kernel& pick(const Batch& batch, const KernelPair& kernels) {
    return batch.args.small() ? kernels.small : kernels.large;
  }

  static const Kernel& finish_kernel_of(const Part& part) {
    const KernelPair& kernels = finish_kernel();
    return part.finish.small() ? kernels.small : kernels.large;
  }

  void run_batch(const Part& part, const Batch& batch, const KernelPair& kernels, const char* name) {
    const Kernel& kernel = pick(batch, kernels);
    const unsigned blocks = std::min(batch.chunks, resident_blocks(kernel, part.device));
    if (blocks > 0) launch(kernel, name, blocks, kThreads, part.stream, batch.args.data());
  }

  void finish(Part& part, bool fold, bool total, bool prepare) {
    FinishHead& head = part.finish.head();
    std::tie(head.fold, head.total, head.prepare) = std::tuple(fold, total, prepare);
    launch(finish_kernel_of(part), "cudaLaunchKernelEx(finish)", 1, kFinishThreads, part.stream, part.finish.data());
  }

  void upload() {
    for (Part& part : parts) {
      const DeviceGuard guard(part.device);
      for (const Upload& u : part.uploads) fill(part.scratch.at(u.offset), u.bytes, part.stream);
      part.uploads.clear();
      const FinishHead& head = part.finish.head();
      const std::pair<Scalar, Scalar> scalars[] = {
          {call.grad_scale, head.grad_scale}, {call.found_inf, head.found_inf}, {call.given_norm, head.given_norm}};
      for (const auto& [from, to] : scalars) {
        if (!is_elsewhere(part, from)) continue;
        order(call.scalar_device, stream_of(call.scalar_device), part.device, part.stream);
        FS_CUDA(cudaMemcpyPeerAsync, to.at, part.device, from.at, call.scalar_device,
                from.wide ? sizeof(double) : sizeof(float), part.stream);
        // Its owner may give the memory back when its own stream has got this far.
        order(part.device, part.stream, call.scalar_device, stream_of(call.scalar_device));
      }
    }
  }

  cudaStream_t stream_of(int device) const {
    for (const auto& [id, stream] : call.streams) {
      if (id == device) return static_cast<cudaStream_t>(stream);
    }
    return nullptr;
  }

  // Chunk sums, then each tensor's sum; where there are several devices, every one gets the sums of all.
  void sum() {
    for (Part& part : parts) {
      const DeviceGuard guard(part.device);
      for (const auto& batch : part.batches) {
        if (batch->normed) {
          run_batch(part, *batch, norm_kernel_of(call.norm, batch->dtype), "cudaLaunchKernelEx(norm)");
        }
      }
      if (parts.size() > 1) finish(part, true, false, false);
    }
    if (parts.size() < 2) return;
    for (Part& to : parts) {
      for (const Part& from : parts) {
        if (to.device != from.device) copy_sums(from, to);
      }
    }
    for (Part& part : parts) {  // whose memory may be reused when its own stream has got this far
      for (const Part& reader : parts) {
        if (part.device != reader.device) order(reader.device, reader.stream, part.device, part.stream);
      }
    }
  }

  void copy_sums(const Part& from, Part& to) {
    order(from.device, from.stream, to.device, to.stream);
    const DeviceGuard guard(to.device);
    for (std::size_t i = 0; i < call.work.size(); ++i) {
      if (call.work[i].device != from.device || sum_of[i] < 0) continue;
      const std::size_t first = i;
      while (i + 1 < call.work.size() && call.work[i + 1].device == from.device && sum_of[i + 1] == sum_of[i] + 1) ++i;
      const std::size_t bytes = (i - first + 1) * sizeof(double);
      FS_CUDA(cudaMemcpyPeerAsync, to.finish.head().sums + sum_of[first], to.device,
              from.finish.head().sums + sum_of[first], from.device, bytes, to.stream);
    }
  }

  // The sums of all tensors on every device.
  void start() {
    if (sums_done) return;
    upload();
    if (call.has_norm) sum();
    sums_done = true;
  }

  // Whether the sums of one device's tensors are still to be folded: where there are several, sum() has done it.
  bool folds() const { return call.has_norm && parts.size() == 1 && !parts.front().finish.head().has_given_total; }

  std::vector<double> sums() {
    start();
    std::vector<double> out(sum_count);
    if (parts.empty() || sum_count == 0) return out;
    Part& part = parts.front();
    const DeviceGuard guard(part.device);
    if (folds()) finish(part, true, false, false);
    FS_CUDA(cudaMemcpyAsync, out.data(), part.finish.head().sums, out.size() * sizeof(double), cudaMemcpyDeviceToHost,
            part.stream);
    FS_CUDA(cudaStreamSynchronize, part.stream);
    return out;
  }

  void use_total(double norm) {
    for (Part& part : parts) {
      part.finish.head().given_total = norm;
      part.finish.head().has_given_total = true;
    }
  }

  std::vector<double> norms() {
    start();
    for (Part& part : parts) {
      const DeviceGuard guard(part.device);
      finish(part, folds(), true, false);
    }
    norm_done = true;
    std::vector<double> out(call.per_tensor ? sum_count : 1);
    const Part* at = &parts.front();
    for (const Part& part : parts) {
      if (call.norm_out && part.device == call.norm_device) at = &part;
    }
    const DeviceGuard guard(at->device);
    FS_CUDA(cudaMemcpyAsync, out.data(), at->finish.head().norm, out.size() * sizeof(double), cudaMemcpyDeviceToHost,
            at->stream);
    FS_CUDA(cudaStreamSynchronize, at->stream);
    return out;
  }

  void step() {
    start();
    for (Part& part : parts) {
      const DeviceGuard guard(part.device);
      const bool has_total = !norm_done && (call.has_norm || call.given_norm.at);
      if (part.has_finish) finish(part, has_total && folds(), has_total, call.steps);
      if (!call.steps || call.skips) continue;
      for (const auto& batch : part.batches) {
        run_batch(part, *batch, step_kernel_of(batch->rule, batch->dtype), "cudaLaunchKernelEx(step)");
      }
    }
  }
};

Run::Run(Call call) : impl_(std::make_unique<Impl>(std::move(call))) {}
Run::~Run() = default;
std::vector<double> Run::sums() { return impl_->sums(); }
void Run::use_total(double norm) { impl_->use_total(norm); }
std::vector<double> Run::norms() { return impl_->norms(); }
void Run::step() { impl_->step(); }

}  // namespace fusedstep::cuda
