#include "run.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "part.h"

namespace fusedstep::cuda {

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
  double number = 0.0;  // room for either
  const auto s = static_cast<cudaStream_t>(stream);
  FS_CUDA(cudaMemcpyAsync, &number, scalar.at, scalar.bytes(), cudaMemcpyDeviceToHost, s);
  FS_CUDA(cudaStreamSynchronize, s);
  return Scalar{&number, scalar.wide}.read();
}

void add_ranks(const double* rows, std::uint32_t ranks, std::uint32_t count, double* out, double norm_type, int device,
               void* stream) {
  const DeviceGuard guard(device);
  Args<RanksHead, kSmallArgs> args{};
  args.head = {rows, out, ranks, count, norm_of(norm_type)};
  const unsigned blocks = std::min((count + kThreads - 1) / kThreads, resident_blocks(ranks_kernel(), device));
  if (count > 0) {
    launch(ranks_kernel(), "cudaLaunchKernelEx(ranks)", blocks, kThreads, static_cast<cudaStream_t>(stream), &args);
  }
}

namespace {

class CudaRun final : public Run {
 public:
  explicit CudaRun(Call& call) : call_(call) {
    for (const auto& [device, stream] : call.streams) {
      if (!takes_part(call, device)) continue;
      const DeviceGuard guard(device);
      parts_.emplace_back(call, device, static_cast<cudaStream_t>(stream));
    }
  }

  std::vector<double> measure() override {
    start();
    std::vector<double> out(call_.sums);
    if (out.empty()) return out;
    Part& part = parts_.front();
    const DeviceGuard guard(part.device);
    if (!has_sums_) finish(part, kMeasure);
    has_sums_ = true;
    copy_back(part, part.finish.head().sums, out);
    return out;
  }

  void use_sums(std::vector<double> sums) override {
    has_sums_ = true;
    for (Part& part : parts_) {
      part.finish.head().given_total = fold_sums(sums, call_.norm_type).total;
      part.finish.head().has_given_total = true;
    }
  }

  void measure_at(double* to) override {
    if (parts_.size() != 1) throw std::invalid_argument("sums over ranks of tensors on several devices of one process");
    start();
    Part& part = parts_.front();
    const DeviceGuard guard(part.device);
    part.finish.head().sums = to;
    finish(part, kMeasure);
    has_sums_ = true;
  }

  void use_sums_at(double* sums, std::int64_t count, const Scalar& failed) override {
    FinishHead& head = parts_.front().finish.head();
    head.sums = sums;
    head.sum_count = static_cast<std::uint32_t>(count);
    head.failed = failed;
  }

  const Norms& fold() override {
    start();
    for (Part& part : parts_) {
      const DeviceGuard guard(part.device);
      finish(part, to_fold());
    }
    has_norms_ = true;
    const auto asked = std::find_if(parts_.begin(), parts_.end(), [this](const Part& part) {
      return call_.norm_out && part.device == call_.result_device;
    });
    const Part& part = asked == parts_.end() ? parts_.front() : *asked;
    const DeviceGuard guard(part.device);
    norms_.each.resize(call_.per_tensor ? call_.sums : 1);
    copy_back(part, part.finish.head().norm, norms_.each);
    if (!call_.per_tensor) norms_.total = norms_.each[0];
    return norms_;
  }

  void apply() override {
    start();
    for (Part& part : parts_) {
      const DeviceGuard guard(part.device);
      if (part.has_finish) finish(part, to_fold() | (call_.phases & kPrepare));
      if (!call_.does(kApply) || call_.skips) continue;
      run_first_passes(part);
      for (const Batch& batch : part.batches) {
        run_table(part, batch, batch.kernel(), "cudaLaunchKernelEx(step)");
      }
      if (const StatsHead& stats = part.stats.head(); stats.count > 0) {
        launch(stats_kernel(), "cudaLaunchKernelEx(stats)", kStats * stats.count, kFinishThreads, part.stream,
               part.stats.data());
      }
    }
  }

 private:
  template <class Head>
  void run_table(const Part& part, const Table<Head>& table, const Kernel& kernel, const char* name) {
    const unsigned blocks = std::min(table.chunks(), resident_blocks(kernel, part.device));
    if (blocks > 0) launch(kernel, name, blocks, kThreads, part.stream, table.args.data());
  }

  // Of rules with sums over a tensor, which complete its uniform.
  void run_first_passes(Part& part) {
    if (part.finish.head().scaled_count == 0) return;
    for (const Batch& batch : part.batches) {
      if (!batch.two_passes) continue;
      const KernelPair& kernels = measure_kernel_of(batch.rule, batch.compute);
      run_table(part, batch, batch.args.fitting(kernels), "cudaLaunchKernelEx(measure)");
    }
    part.finish.head().scale_uniforms = true;
    finish(part, 0);
    part.finish.head().scale_uniforms = false;
  }

  // The end of kMeasure (chunk sums to each tensor's), kFold and kPrepare, in one launch.
  void finish(Part& part, Phases phases) {
    FinishHead& head = part.finish.head();
    head.fold_chunks = phases & kMeasure;
    head.fold_tensors = phases & kFold;
    head.prepare = phases & kPrepare;
    launch(part.finish.fitting(finish_kernel()), "cudaLaunchKernelEx(finish)", 1, kFinishThreads, part.stream,
           part.finish.data());
  }

  // What finish() still has to do for the norm. It is one device's own if it is anybody's: see start().
  Phases to_fold() const {
    if (has_norms_) return 0;
    return call_.phases & (has_sums_ ? kFold : kFold | kMeasure);
  }

  void copy_back(const Part& part, const double* from, std::vector<double>& to) {
    FS_CUDA(cudaMemcpyAsync, to.data(), from, to.size() * sizeof(double), cudaMemcpyDeviceToHost, part.stream);
    FS_CUDA(cudaStreamSynchronize, part.stream);
  }

  // Chunk sums; where there are several devices, every one then gets the sums of all.
  void start() {
    if (started_) return;
    started_ = true;
    for (Part& part : parts_) {
      const DeviceGuard guard(part.device);
      part.upload();
      const FinishHead& head = part.finish.head();
      copy_number(part, call_.grad_scale, head.grad_scale);
      copy_number(part, call_.found_inf, head.found_inf);
      copy_number(part, call_.given_norm, head.given_norm);
    }
    if (!call_.does(kMeasure)) return;
    for (Part& part : parts_) {
      const DeviceGuard guard(part.device);
      for (const NormBatch& batch : part.norm_batches) {
        const KernelPair& kernels = norm_kernel_of(norm_of(call_.norm_type), batch.compute, batch.masked);
        run_table(part, batch, batch.args.fitting(kernels), "cudaLaunchKernelEx(norm)");
      }
      if (parts_.size() > 1) finish(part, kMeasure);
    }
    if (parts_.size() > 1) share_sums();
  }

  void copy_number(const Part& part, const Number& from, const Scalar& to) {
    if (!part.lacks(from)) return;
    order(from.device, stream_of(from.device), part.device, part.stream);
    FS_CUDA(cudaMemcpyPeerAsync, to.at, part.device, from.at.at, from.device, from.at.bytes(), part.stream);
    // Its owner may give the memory back when its own stream has got this far.
    order(part.device, part.stream, from.device, stream_of(from.device));
  }

  cudaStream_t stream_of(int device) const {
    for (const auto& [id, stream] : call_.streams) {
      if (id == device) return static_cast<cudaStream_t>(stream);
    }
    return nullptr;
  }

  void share_sums() {
    has_sums_ = true;
    for (Part& to : parts_) {
      for (const Part& from : parts_) {
        if (to.device != from.device) copy_sums(from, to);
      }
    }
    for (Part& part : parts_) {  // whose memory may be reused when its own stream has got this far
      for (const Part& reader : parts_) {
        if (part.device != reader.device) order(reader.device, reader.stream, part.device, part.stream);
      }
    }
  }

  void copy_sums(const Part& from, Part& to) {
    order(from.device, from.stream, to.device, to.stream);
    const DeviceGuard guard(to.device);
    const auto& tensors = call_.tensors;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].device != from.device || !tensors[i].normed()) continue;
      const std::int32_t first = tensors[i].sum;
      while (i + 1 < tensors.size() && tensors[i + 1].device == from.device && tensors[i + 1].normed()) ++i;
      FS_CUDA(cudaMemcpyPeerAsync, to.finish.head().sums + first, to.device, from.finish.head().sums + first,
              from.device, (tensors[i].sum - first + 1) * sizeof(double), to.stream);
    }
  }

  const Call& call_;
  std::vector<Part> parts_;  // one per device
  bool started_ = false;
  bool has_sums_ = false;   // every device has each tensor's sum, or the total in place of them
  bool has_norms_ = false;  // every device has the norm(s)
  Norms norms_;
};

}  // namespace

std::unique_ptr<Run> start(Call& call) { return std::make_unique<CudaRun>(call); }

}  // namespace fusedstep::cuda
