// The machine's limit for bench/compare.py, as far as a C++ compiler gets: arrays that are read and written. The OpenMP
// library is the one that torch has loaded.
#include <cstdint>

namespace {
constexpr std::int64_t kBlock = 16384;

template <int kReads, int kWrites>
void stream(float* const* a, std::int64_t n, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (n > kBlock)
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
// One array is written: clipping writes the gradient.
extern "C" int stream_arrays(float* const* a, int reads, std::int64_t n, int threads) {
  using Loop = void (*)(float* const*, std::int64_t, int);
  constexpr Loop kLoops[] = {stream<1, 1>, stream<2, 1>, stream<3, 2>, stream<4, 3>, stream<5, 4>, stream<6, 5>};
  if (reads < 1 || reads > 6) return 1;
  kLoops[reads - 1](a, n, threads);
  return 0;
}

// Reads one array: what a norm of the gradient cannot avoid. Several sums, so that memory is the limit, not additions.
extern "C" float read_array(const float* a, std::int64_t n, int threads) {
  float total = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : total) if (n > kBlock)
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
