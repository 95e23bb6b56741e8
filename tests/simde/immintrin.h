// In front of the compiler's own <immintrin.h>: AVX-512 intrinsics that run on any CPU, through SIMDe's aliases. For
// target simde_avx512 only. Below are those that vec/avx512.h uses and SIMDe 0.7.4 lacks, element by element, and the
// names of masks.
#pragma once
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

#include <cstdint>

static_assert(!SIMDE_NATURAL_VECTOR_SIZE_GE(512), "compile without AVX-512, or nothing is emulated");

#define FS_SHIM static inline __attribute__((always_inline))

FS_SHIM simde__m512 fs_maskz_loadu_ps(simde__mmask16 mask, const float* at) {
  float x[16] = {};
  for (int k = 0; k < 16; ++k) {
    if (mask >> k & 1) x[k] = at[k];
  }
  return simde_mm512_loadu_ps(x);
}
FS_SHIM simde__m512d fs_maskz_loadu_pd(simde__mmask8 mask, const double* at) {
  double x[8] = {};
  for (int k = 0; k < 8; ++k) {
    if (mask >> k & 1) x[k] = at[k];
  }
  return simde_mm512_loadu_pd(x);
}
FS_SHIM void fs_mask_storeu_ps(float* at, simde__mmask16 mask, simde__m512 r) {
  float x[16];
  simde_mm512_storeu_ps(x, r);
  for (int k = 0; k < 16; ++k) {
    if (mask >> k & 1) at[k] = x[k];
  }
}
FS_SHIM void fs_mask_storeu_pd(double* at, simde__mmask8 mask, simde__m512d r) {
  double x[8];
  simde_mm512_storeu_pd(x, r);
  for (int k = 0; k < 8; ++k) {
    if (mask >> k & 1) at[k] = x[k];
  }
}
FS_SHIM simde__m512i fs_cvtepu16_epi32(simde__m256i r) {
  std::uint16_t x[16];
  std::uint32_t to[16];
  simde_mm256_storeu_si256(x, r);
  for (int k = 0; k < 16; ++k) to[k] = x[k];
  return simde_mm512_loadu_si512(to);
}
FS_SHIM simde__m256i fs_cvtepi32_epi16(simde__m512i r) {
  std::uint32_t x[16];
  std::uint16_t to[16];
  simde_mm512_storeu_si512(x, r);
  for (int k = 0; k < 16; ++k) to[k] = static_cast<std::uint16_t>(x[k]);
  return simde_mm256_loadu_si256(to);
}
using __mmask8 = simde__mmask8;
using __mmask16 = simde__mmask16;

#define _mm512_maskz_loadu_ps fs_maskz_loadu_ps
#define _mm512_maskz_loadu_pd fs_maskz_loadu_pd
#define _mm512_mask_storeu_ps fs_mask_storeu_ps
#define _mm512_mask_storeu_pd fs_mask_storeu_pd
#define _mm512_cvtepu16_epi32 fs_cvtepu16_epi32
#define _mm512_cvtepi32_epi16 fs_cvtepi32_epi16
