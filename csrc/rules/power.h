// Powers of constants, for prepare(). libm's differ between platforms; these are multiplications, additions, divisions
// and exact moves of the exponent, in the order of fusedstep.reference, and so have the same bits everywhere.
#pragma once
#include <cstring>

#include "../base.h"

namespace fusedstep {

// beta^step.
FS_INLINE double power(double beta, std::int64_t step) {
  double result = 1.0;
  for (; step > 0; step >>= 1) {
    if (step & 1) result *= beta;
    beta *= beta;
  }
  return result;
}

FS_INLINE std::uint64_t bits_of(double x) {
  std::uint64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

FS_INLINE double from_bits(std::uint64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The natural logarithm in two parts, the first with 21 zeros at its end: its product with an exponent is exact.
inline constexpr double kLn2High = 0x1.62e42fee00000p-1, kLn2Low = 0x1.a39ef35793c76p-33;

// The natural logarithm to about 2 ulp: x is f * 2^e with f around 1, and log f the series of 2 atanh((f - 1) / (f +
// 1)).
FS_INLINE double fs_log(double x) {
  const double inf = from_bits(0x7ff0000000000000);
  if (x == 0.0) return -inf;
  if (!(x > 0.0)) return from_bits(0x7ff8000000000000);
  if (x == inf) return x;
  int e = -1023;
  if (x < 0x1p-1022) {
    x *= 0x1p54;
    e -= 54;
  }
  e += static_cast<int>(bits_of(x) >> 52);
  double f = from_bits((bits_of(x) & 0x000fffffffffffff) | 0x3ff0000000000000);
  if (f >= 1.4142135623730951) {
    f *= 0.5;
    e += 1;
  }
  const double s = (f - 1.0) / (f + 1.0), z = s * s;
  double series = 1.0 / 23.0;
  for (int k = 21; k >= 3; k -= 2) series = series * z + 1.0 / k;
  return e * kLn2High + (2.0 * s + (2.0 * s * z * series + e * kLn2Low));
}

// e^x, as 2^k times the series of what is left, at most log(2) / 2.
FS_INLINE double fs_exp(double x) {
  if (x != x) return x;
  if (x > 710.0) return from_bits(0x7ff0000000000000);
  if (x < -746.0) return 0.0;
  const double quotient = x * 1.4426950408889634 + 0.5;
  int k = static_cast<int>(quotient);
  if (k > quotient) k -= 1;
  const double r = (x - k * kLn2High) - k * kLn2Low;
  double series = 1.0;
  for (int n = 14; n >= 1; --n) series = 1.0 + series * r / n;
  // In two factors, neither of which overflows where the product does not; at most one rounds.
  const int size = k < 0 ? -k : k;
  const double base = k < 0 ? 0.5 : 2.0;
  return series * power(base, size / 2) * power(base, size - size / 2);
}

// b^x for b >= 0: e^(x log b), with an error of about 1 + |x log b| ulp.
FS_INLINE double fs_pow(double b, double x) { return x == 0.0 ? 1.0 : fs_exp(x * fs_log(b)); }

}  // namespace fusedstep
