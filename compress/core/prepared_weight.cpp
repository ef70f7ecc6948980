#include "compress/core/prepared_weight.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cstring>

#include "compress/core/errors.h"
#include "compress/kernels/split_product/split_product.h"

namespace attar {

PreparedWeight::PreparedWeight(const std::vector<at::Tensor>& parts) {
  inputs_ = parts.front().size(1);
  for (const at::Tensor& part : parts) {
    require(part.dim() == 2 && part.size(1) == inputs_, "weight",
            "layers that are multiplied together must read one input of ", inputs_, ", got ",
            part.sizes());
    outputs_ += part.size(0);
  }
  if (!kernels::has_split_product()) {
    values_ = parts.size() == 1 ? parts.front().contiguous() : at::cat(parts, 0);
    return;
  }
  // Two pieces hold every float16 and nearly every value of a 4-bit grid.
  if (!pack(parts, 2)) pack(parts, 3);
}

// False if so many pieces do not hold the values exactly.
bool PreparedWeight::pack(const std::vector<at::Tensor>& parts, int pieces) {
  constexpr std::int64_t kPanel = 32;
  const std::int64_t bytes = kernels::split_bytes(outputs_, inputs_, pieces);
  const std::int64_t padded = outputs_ % kPanel == 0 ? 0 : kernels::split_bytes(1, inputs_, pieces);
  values_ = at::Tensor();
  values_ = at::empty({bytes}, at::kByte);
  pieces_ = pieces;
  auto* weights = values_.mutable_data_ptr<std::uint8_t>();
  std::memset(weights + bytes - padded, 0, static_cast<std::size_t>(padded));
  std::int64_t first = 0;
  for (const at::Tensor& part : parts) {
    const at::Tensor rows = part.to(at::kFloat).contiguous();
    const int needed = kernels::split_pack(
        {rows.const_data_ptr<float>(), first, rows.size(0), inputs_, pieces, weights});
    if (needed > pieces) return false;
    first += rows.size(0);
  }
  return true;
}

std::int64_t PreparedWeight::bytes() const {
  return values_.defined() ? static_cast<std::int64_t>(values_.nbytes()) : 0;
}

at::Tensor PreparedWeight::multiply_into(at::Tensor out, const at::Tensor& x,
                                         const at::Tensor& bias, const at::Tensor& added) const {
  at::Tensor flat = out.flatten(0, -2);
  at::Tensor rows = x.flatten(0, -2);
  if (pieces_ == 0) {
    if (bias.defined()) {
      at::addmm_out(flat, bias, rows, values_.t());
    } else {
      at::mm_out(flat, rows, values_.t());
    }
    return added.defined() ? out.add_(added) : out;
  }
  if (rows.stride(1) != 1) rows = rows.contiguous();
  kernels::split_product({rows.const_data_ptr<float>(), rows.stride(0), rows.size(0), inputs_,
                          values_.const_data_ptr(), outputs_, pieces_,
                          bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                          added.defined() ? added.const_data_ptr<float>() : nullptr,
                          flat.mutable_data_ptr<float>(), outputs_});
  return out;
}

}  // namespace attar
