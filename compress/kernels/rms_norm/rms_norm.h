// Root mean square normalisation (Zhang and Sennrich 2019, arXiv:1910.07467).
#pragma once

#include <cstdint>

#include "compress/kernels/variants.h"

namespace attar::kernels {

// out[r][c] = (x[r][c] / sqrt(mean_c x[r][c]^2 + eps)) * weight[c], rounded in that order, as
// Hugging Face rounds it in fp32. For Gemma pass 1 + w as weight.
struct RmsNorm {
  const float* x;       // [rows, columns]
  const float* weight;  // [columns]
  float* out;           // [rows, columns]; may be x
  std::int64_t rows;
  std::int64_t columns;
  float eps;
};
void rms_norm(const RmsNorm& call, const Variant& variant = active_variant());

// x += delta, then out = the norm of the new x: a residual sum and the norm that follows it, in one
// walk. The same bits as the two steps one after the other.
struct AddRmsNorm {
  float* x;             // [rows, columns], rewritten
  const float* delta;   // [rows, columns]
  const float* weight;  // [columns]
  float* out;           // [rows, columns]; not x; may be delta
  std::int64_t rows;
  std::int64_t columns;
  float eps;
};
void add_rms_norm(const AddRmsNorm& call, const Variant& variant = active_variant());

// The gradient of RmsNorm. With r = 1 / sqrt(mean x^2 + eps):
//   x_gradient = r (w g) - x r^3 / columns * sum(w g x)
// The weight's gradient, sum over rows of g x r, comes in parts of kPartRows rows each, so that
// their sum in order does not depend on threads.
struct RmsNormGradient {
  static constexpr std::int64_t kPartRows = 64;
  const float* x;         // [rows, columns]
  const float* weight;    // [columns]
  const float* gradient;  // [rows, columns], of the output
  float* x_gradient;      // [rows, columns]; may be gradient
  float* weight_parts;    // [ceil(rows / kPartRows), columns]
  std::int64_t rows;
  std::int64_t columns;
  float eps;
};
void rms_norm_gradient(const RmsNormGradient& call, const Variant& variant = active_variant());

}  // namespace attar::kernels
