#include "tests/formats/round_to_nearest.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/round.h>

namespace attar::testing {

QuantizedWeight round_to_nearest(const at::Tensor& values, const QuantScheme& scheme) {
  const std::int64_t out = values.size(0), in = values.size(1), groups = scheme.groups(in);
  const at::Tensor grouped = values.view({out, groups, in / groups});
  const double highest = scheme.levels() - 1;
  const auto stored = [&](const at::Tensor& t) { return t.to(scheme.scale_type).to(at::kFloat); };
  const at::Tensor low = at::amin(grouped, 2).clamp_max(0);
  const at::Tensor high = at::amax(grouped, 2).clamp_min(0);
  QuantizedWeight weight;
  weight.scheme = scheme;
  at::Tensor codes;
  if (scheme.zero_point == ZeroPoint::kSymmetric) {
    const at::Tensor largest = at::amax(at::abs(grouped), 2);
    weight.scale = stored((largest * (2 / highest)).clamp_min(1e-4));
    codes = at::round(grouped / weight.scale.unsqueeze(2)) + scheme.levels() / 2.0;
  } else {
    weight.scale = stored(((high - low) / highest).clamp_min(1e-4));
    if (scheme.zero_point == ZeroPoint::kInteger) {
      weight.zero = at::round(-low / weight.scale).clamp(0, highest);
      codes = at::round(grouped / weight.scale.unsqueeze(2)) + weight.zero.unsqueeze(2);
    } else {
      weight.zero = stored(low);
      codes = at::round((grouped - weight.zero.unsqueeze(2)) / weight.scale.unsqueeze(2));
    }
  }
  weight.codes = codes.clamp(0, highest).to(at::kByte).view({out, in}).contiguous();
  return weight;
}

}  // namespace attar::testing
