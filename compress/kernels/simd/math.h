// Elementary functions over one vector, written once for every instruction set S.
#pragma once

#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

// e^x, error <= 2 units in the last place with FMA and without, subnormal results included;
// 0 below -104, infinite above 89, NaN for NaN. x = n ln 2 + r, e^r = 1 + r + r^2 q(r) with q a
// minimax fit of degree 4 on |r| <= ln(2)/2 (relative error 3e-9); ln 2 in two parts (Cody and
// Waite), the first short enough that n times it is exact.
template <class S>
ATTAR_INLINE typename S::Floats exponential(typename S::Floats x) {
  x = S::max(S::broadcast(-105.0f), S::min(S::broadcast(90.0f), x));
  const auto n = S::round(S::mul(x, S::broadcast(1.44269504f)));
  auto r = S::mul_add(n, S::broadcast(-0.693359375f), x);
  r = S::mul_add(n, S::broadcast(2.12194440e-4f), r);
  auto q = S::broadcast(0.00138145988f);
  q = S::mul_add(q, r, S::broadcast(0.00836871658f));
  q = S::mul_add(q, r, S::broadcast(0.0416683890f));
  q = S::mul_add(q, r, S::broadcast(0.166665211f));
  q = S::mul_add(q, r, S::broadcast(0.499999940f));
  const auto tail = S::mul_add(S::mul(r, r), q, r);
  return S::scale_by_power(S::add(S::broadcast(1.0f), tail), n);
}

// 1 / (1 + e^-x).
template <class S>
ATTAR_INLINE typename S::Floats sigmoid(typename S::Floats x) {
  const auto one = S::broadcast(1.0f);
  return S::div(one, S::add(one, exponential<S>(S::sub(S::broadcast(0.0f), x))));
}

inline constexpr float kNormalTail[] = {0.119686633f, 0.119572841f,   0.110227324f, 0.0784255713f,
                                        0.096057862f, -0.0792474076f, 0.191581786f, -0.228067577f,
                                        0.112375811f, -0.0206128359f};

// Phi(-a) for a >= 0, the lower tail of the standard normal: t p(t) exp(-a^2/2) with
// t = 1 / (1 + 0.3 a), p a minimax fit of degree 9 for a <= 14 (relative error 4e-9), beyond which
// the result is below the smallest normal number. The rounding error of a^2 is put back.
template <class S>
ATTAR_INLINE typename S::Floats normal_tail(typename S::Floats a) {
  const auto one = S::broadcast(1.0f);
  a = S::min(S::broadcast(14.0f), a);
  const auto t = S::div(one, S::mul_add(S::broadcast(0.3f), a, one));
  auto p = S::broadcast(kNormalTail[9]);
  for (int i = 8; i >= 0; --i) p = S::mul_add(p, t, S::broadcast(kNormalTail[i]));

  // a = high + low with high of 12 bits, so that high^2 is exact: a^2 = high^2 + low (a + high).
  const auto shifted = S::mul(a, S::broadcast(4097.0f));
  const auto high = S::sub(shifted, S::sub(shifted, a));
  const auto low = S::sub(a, high);
  const auto minus_half = S::broadcast(-0.5f);
  const auto main = exponential<S>(S::mul(minus_half, S::mul(high, high)));
  const auto e = S::mul(minus_half, S::mul(low, S::add(a, high)));  // |e| < 0.025
  auto rest = S::mul_add(e, S::broadcast(1.0f / 6), S::broadcast(0.5f));
  rest = S::mul_add(S::mul(e, e), rest, S::add(one, e));
  return S::mul(S::mul(t, p), S::mul(main, rest));
}

// log(1 + x) for x in [0, 1], error <= 3 units in the last place: 2 atanh(s) with s = x / (2 + x)
// <= 1/3, the series to s^15.
template <class S>
ATTAR_INLINE typename S::Floats log_one_plus(typename S::Floats x) {
  const auto s = S::div(x, S::add(S::broadcast(2.0f), x));
  const auto square = S::mul(s, s);
  auto sum = S::broadcast(1.0f / 15);
  for (int odd = 13; odd >= 1; odd -= 2) {
    sum = S::mul_add(sum, square, S::broadcast(1.0f / static_cast<float>(odd)));
  }
  return S::mul(S::add(s, s), sum);
}

}  // namespace attar::kernels
