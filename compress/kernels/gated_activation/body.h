// The activations, once for every instruction set S.
#pragma once

#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/simd/math.h"

namespace attar::kernels {

template <class S, Activation kind>
ATTAR_INLINE typename S::Floats activate(typename S::Floats x) {
  const auto zero = S::broadcast(0.0f);
  if constexpr (kind == Activation::silu) {
    const auto one = S::broadcast(1.0f);
    return S::div(x, S::add(one, exponential<S>(S::sub(zero, x))));
  } else if constexpr (kind == Activation::gelu_tanh) {
    // 2 sqrt(2/pi) (x + 0.044715 x^3)
    const auto cubic =
        S::mul_add(S::mul(x, x), S::broadcast(0.0713548163f), S::broadcast(1.59576912f));
    const auto one = S::broadcast(1.0f);
    return S::div(x, S::add(one, exponential<S>(S::sub(zero, S::mul(x, cubic)))));
  } else if constexpr (kind == Activation::gelu_erf) {
    const auto tail = normal_tail<S>(S::abs(x));
    return S::mul(x, S::select(S::less(x, zero), tail, S::sub(S::broadcast(1.0f), tail)));
  } else {
    return S::max(zero, x);
  }
}

template <class S, Activation kind>
ATTAR_INLINE void gate_row(const float* gate, const float* up, float* out, std::int64_t columns) {
  constexpr int W = S::kWidth;
  std::int64_t c = 0;
  for (; c + W <= columns; c += W) {
    const auto y = activate<S, kind>(S::load(gate + c));
    S::store(out + c, up ? S::mul(y, S::load(up + c)) : y);
  }
  const std::int64_t rest = columns - c;
  if (rest == 0) return;
  const auto y = activate<S, kind>(S::load_first(gate + c, rest, 0.0f));
  S::store_first(out + c, up ? S::mul(y, S::load_first(up + c, rest, 0.0f)) : y, rest);
}

template <class S, Activation kind>
void gate_rows(const GatedActivation& call, std::int64_t begin, std::int64_t end) {
  for (std::int64_t r = begin; r < end; ++r) {
    gate_row<S, kind>(call.gate + r * call.gate_stride,
                      call.up ? call.up + r * call.up_stride : nullptr,
                      call.out + r * call.out_stride, call.columns);
  }
}

template <class S>
void gated_activation_rows(const GatedActivation& call, std::int64_t begin, std::int64_t end) {
  switch (call.activation) {
    case Activation::silu:
      return gate_rows<S, Activation::silu>(call, begin, end);
    case Activation::gelu_tanh:
      return gate_rows<S, Activation::gelu_tanh>(call, begin, end);
    case Activation::gelu_erf:
      return gate_rows<S, Activation::gelu_erf>(call, begin, end);
    case Activation::relu:
      return gate_rows<S, Activation::relu>(call, begin, end);
  }
}

// act(x) and its derivative.
template <class S>
struct Slope {
  typename S::Floats value, derivative;
};

template <class S, Activation kind>
ATTAR_INLINE Slope<S> slope(typename S::Floats x) {
  const auto zero = S::broadcast(0.0f), one = S::broadcast(1.0f);
  if constexpr (kind == Activation::silu) {
    const auto s = sigmoid<S>(x);
    return {S::mul(x, s), S::mul(s, S::mul_add(x, S::sub(one, s), one))};
  } else if constexpr (kind == Activation::gelu_tanh) {
    // x sigmoid(w), w = 2 sqrt(2/pi) (x + 0.044715 x^3)
    const auto square = S::mul(x, x);
    const auto w =
        S::mul(x, S::mul_add(square, S::broadcast(0.0713548163f), S::broadcast(1.59576912f)));
    const auto turn = S::mul_add(square, S::broadcast(0.214064449f), S::broadcast(1.59576912f));
    const auto s = sigmoid<S>(w);
    return {S::mul(x, s), S::mul(s, S::mul_add(S::mul(x, turn), S::sub(one, s), one))};
  } else if constexpr (kind == Activation::gelu_erf) {
    const auto tail = normal_tail<S>(S::abs(x));
    const auto below = S::select(S::less(x, zero), tail, S::sub(one, tail));
    const auto density = S::mul(S::broadcast(0.398942280f),
                                exponential<S>(S::mul(S::broadcast(-0.5f), S::mul(x, x))));
    return {S::mul(x, below), S::mul_add(x, density, below)};
  } else {
    return {S::max(zero, x), S::select(S::less(zero, x), one, zero)};
  }
}

template <class S, Activation kind>
void gate_gradient_rows(const GatedActivationGradient& call, std::int64_t begin, std::int64_t end) {
  constexpr int W = S::kWidth;
  const std::int64_t last = end * call.columns;
  for (std::int64_t i = begin * call.columns; i < last; i += W) {
    const std::int64_t left = last - i;
    const bool whole = left >= W;
    const auto load = [&](const float* from) {
      return whole ? S::load(from + i) : S::load_first(from + i, left, 0.0f);
    };
    const Slope<S> act = slope<S, kind>(load(call.gate));
    const auto up = load(call.up), gradient = load(call.gradient);
    const auto gate_gradient = S::mul(S::mul(gradient, up), act.derivative);
    const auto up_gradient = S::mul(gradient, act.value);
    if (whole) {
      S::store(call.gate_gradient + i, gate_gradient);
      S::store(call.up_gradient + i, up_gradient);
    } else {
      S::store_first(call.gate_gradient + i, gate_gradient, left);
      S::store_first(call.up_gradient + i, up_gradient, left);
    }
  }
}

template <class S>
void gated_activation_gradient_rows(const GatedActivationGradient& call, std::int64_t begin,
                                    std::int64_t end) {
  switch (call.activation) {
    case Activation::silu:
      return gate_gradient_rows<S, Activation::silu>(call, begin, end);
    case Activation::gelu_tanh:
      return gate_gradient_rows<S, Activation::gelu_tanh>(call, begin, end);
    case Activation::gelu_erf:
      return gate_gradient_rows<S, Activation::gelu_erf>(call, begin, end);
    case Activation::relu:
      return gate_gradient_rows<S, Activation::relu>(call, begin, end);
  }
}

}  // namespace attar::kernels
