#include "compress/core/quantized_codes.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "compress/core/code_rows.h"
#include "compress/core/streamed_memory.h"

namespace attar {

std::shared_ptr<const QuantizedCodes> QuantizedCodes::pack(
    const std::vector<PreparedWeight::Part>& parts) {
  const bool all = std::all_of(parts.begin(), parts.end(),
                               [](const auto& part) { return multiplies_as_codes(*part.weight); });
  if (!all) return nullptr;
  auto packed = std::make_shared<QuantizedCodes>();
  if (token_grid(*parts.front().weight)) packed->rounded_by_ = kernels::RoundedBy::token;
  std::int64_t first = 0;
  for (const PreparedWeight::Part& part : parts) {
    const CodeRows read(std::get<QuantizedWeight>(*part.weight));
    const kernels::GridRows& rows = read.rows();
    const kernels::QuantizedFormat format = kernels::format_for(rows);
    at::Tensor memory = streamed_piece(kernels::quantized_bytes(rows.count, rows.inner, format));
    kernels::quantized_pack(rows, format, memory.mutable_data_ptr());
    const void* weights = memory.const_data_ptr();
    packed->segments_.push_back(
        {std::move(memory), {weights, rows.inner, rows.count, format}, first});
    packed->inputs_ = rows.inner;
    first += rows.count;
  }
  return packed;
}

std::int64_t QuantizedCodes::bytes() const {
  std::int64_t sum = 0;
  for (const Segment& segment : segments_)
    sum += static_cast<std::int64_t>(segment.memory.nbytes());
  return sum;
}

namespace {

kernels::QuantizedProduct product_of(const kernels::RoundedRows& x,
                                     const kernels::QuantizedLayer& layer, std::int64_t first,
                                     const QuantizedCodes::Output& to) {
  return {x,
          layer,
          to.bias ? to.bias + first : nullptr,
          to.added ? to.added + first : nullptr,
          to.out + first,
          to.stride};
}

}  // namespace

void QuantizedCodes::multiply(const float* x, std::int64_t x_stride, std::int64_t rows,
                              const Output& to) const {
  thread_local RoundedMemory memory;
  const kernels::RoundedRows rounded = memory.round(*this, x, x_stride, rows);
  for (const Segment& segment : segments_) {
    kernels::quantized_product(product_of(rounded, segment.layer, segment.first, to));
  }
}

void QuantizedCodes::multiply_share(const kernels::RoundedRows& x, const Output& to, int share,
                                    int shares) const {
  for (const Segment& segment : segments_) {
    const auto [begin, end] =
        outputs_of_share(segment.layer.columns, kernels::kOutputsTogether, share, shares);
    kernels::quantized_product_outputs(product_of(x, segment.layer, segment.first, to), begin, end);
  }
}

kernels::RoundedRows RoundedMemory::round(const QuantizedCodes& codes, const float* x,
                                          std::int64_t stride, std::int64_t rows) {
  const std::int64_t inner = codes.inputs(), needed = kernels::rounded_bytes(rows, inner);
  if (!held_.defined() || held_.numel() < needed) {
    held_ = at::Tensor();
    held_ = at::empty({needed}, at::kByte);
  }
  const kernels::RoundedRows rounded =
      kernels::rounded_rows(held_.mutable_data_ptr(), rows, inner, codes.rounded_by());
  kernels::round_rows({x, stride, rounded});
  return rounded;
}

}  // namespace attar
