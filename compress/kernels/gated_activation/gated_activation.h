// The element-wise half of a gated MLP (Shazeer 2020, arXiv:2002.05202).
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

enum class Activation : std::uint8_t {
  silu,       // x / (1 + exp(-x))
  gelu_tanh,  // x * sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3): "gelu_pytorch_tanh",
              // "gelu_new"
  gelu_erf,   // x * Phi(x): "gelu"
  relu,
};

// out = act(gate) * up; with up == nullptr, out = act(gate).
//
// Error of act(x) against exact arithmetic, for finite x: at most 8 * 2^-23 relative (silu: 4),
// plus 1e-36 absolute (where exp(-x) overflows). For x < 0 the Gaussian tails cost more: gelu_erf
// 16 * 2^-23, gelu_tanh (8 + |4 u|) * 2^-23.
struct GatedActivation {
  const float* gate;  // [rows, columns]
  const float* up;    // [rows, columns] or nullptr
  float* out;         // [rows, columns]; may be gate or up
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t gate_stride;  // floats from row to row
  std::int64_t up_stride;
  std::int64_t out_stride;
  Activation activation;
};
void gated_activation(const GatedActivation& call, const Variant& variant = active_variant());

// The gradient of act(gate) * up: gate_gradient = gradient * up * act'(gate), up_gradient =
// gradient * act(gate). relu' (0) = 0.
struct GatedActivationGradient {
  const float* gate;      // [rows, columns]
  const float* up;        // [rows, columns]
  const float* gradient;  // [rows, columns], of the output
  float* gate_gradient;   // [rows, columns]; may be gate or gradient
  float* up_gradient;     // [rows, columns]; may be up
  std::int64_t rows;
  std::int64_t columns;
  Activation activation;
};
void gated_activation_gradient(const GatedActivationGradient& call,
                               const Variant& variant = active_variant());

}  // namespace attar::kernels
