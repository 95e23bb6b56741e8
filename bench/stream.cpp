// The machine's limits for bench/compare.py, as far as a C++ compiler gets: bytes per second of arrays that are read
// and written, and floating-point operations per second. g++ -O3 -march=native -ffp-contract=off -fopenmp -shared
// -fPIC; the OpenMP library is the one that torch has loaded.
#include <cstdint>

namespace {
constexpr std::int64_t kBlock = 16384;

template <int kReads, int kWrites>
void stream(float* const* a, std::int64_t n, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t block = 0; block < (n + kBlock - 1) / kBlock; ++block) {
    const std::int64_t begin = block * kBlock, end = begin + kBlock < n ? begin + kBlock : n;
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      float sum = a[kReads - 1][i];
      for (int k = 0; k + 1 < kReads; ++k) sum += a[k][i];
      for (int k = 0; k < kWrites; ++k) a[k][i] = sum * 0.125f;
    }
  }
}
}  // namespace

// Reads `reads` arrays of n floats and writes all but the last: a step leaves the gradient, and only that, unwritten.
extern "C" int stream_arrays(float* const* a, int reads, std::int64_t n, int threads) {
  switch (reads) {
    case 2:
      stream<2, 1>(a, n, threads);
      return 0;
    case 3:
      stream<3, 2>(a, n, threads);
      return 0;
    case 4:
      stream<4, 3>(a, n, threads);
      return 0;
    case 5:
      stream<5, 4>(a, n, threads);
      return 0;
    default:
      return 1;
  }
}

// Reads one array: what a norm of the gradient cannot avoid. Several sums, so that memory is the limit, not additions.
extern "C" float read_array(const float* a, std::int64_t n, int threads) {
  float total = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : total)
  for (std::int64_t block = 0; block < (n + kBlock - 1) / kBlock; ++block) {
    const std::int64_t begin = block * kBlock, end = begin + kBlock < n ? begin + kBlock : n;
    float sums[64] = {};
    std::int64_t i = begin;
    for (; i + 64 <= end; i += 64) {
#pragma omp simd
      for (int k = 0; k < 64; ++k) sums[k] += a[i + k];
    }
    for (; i < end; ++i) sums[0] += a[i];
    for (const float s : sums) total += s;
  }
  return total;
}

// Multiplications and additions, not fused, on registers. Returns how many were done.
extern "C" double multiply_add(std::int64_t rounds, int threads, float* sink) {
  constexpr int kLanes = 256;  // 16 registers of 512 bits: enough to hide the latency of both operations
#pragma omp parallel num_threads(threads)
  {
    float x[kLanes];
    for (int k = 0; k < kLanes; ++k) x[k] = static_cast<float>(k);
    for (std::int64_t r = 0; r < rounds; ++r) {
#pragma omp simd
      for (int k = 0; k < kLanes; ++k) x[k] = x[k] * 0.999f + 0.001f;
    }
    float sum = 0;
    for (const float v : x) sum += v;
#pragma omp atomic
    *sink += sum;
  }
  return 2.0 * kLanes * static_cast<double>(rounds) * threads;
}
