// The memory limit for bench/step.py: reads `reads` arrays, writes the first `writes` of them, and does next to
// nothing. g++ -O3 -march=native -fopenmp -shared -fPIC; the OpenMP library is the one that torch has loaded.
#include <cstdint>

namespace {
template <int kReads, int kWrites>
void stream(float* const* a, std::int64_t n, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (std::int64_t block = 0; block < (n + 16383) / 16384; ++block) {
    const std::int64_t begin = block * 16384, end = begin + 16384 < n ? begin + 16384 : n;
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
      float sum = a[kReads - 1][i];
      for (int k = 0; k + 1 < kReads; ++k) sum += a[k][i];
      for (int k = 0; k < kWrites; ++k) a[k][i] = sum * 0.125f;
    }
  }
}
}  // namespace

extern "C" int stream_arrays(float* const* a, int reads, int writes, std::int64_t n, int threads) {
  if (writes != reads - 1) return 1;  // every rule here leaves the gradient, and only that, unwritten
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
