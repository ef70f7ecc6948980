#include "compress/core/prepared_weight.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

#include "compress/core/errors.h"
#include "compress/core/forward.h"
#include "compress/core/quantized_codes.h"
#include "compress/core/streamed_memory.h"

namespace attar {
namespace {

at::Tensor joined_bias(const std::vector<PreparedWeight::Part>& parts) {
  const bool any =
      std::any_of(parts.begin(), parts.end(), [](const auto& part) { return part.bias.defined(); });
  if (!any) return {};
  std::vector<at::Tensor> biases;
  for (const PreparedWeight::Part& part : parts) {
    biases.push_back(part.bias.defined() ? part.bias.to(at::kFloat)
                                         : at::zeros({shape_of(*part.weight).out}, at::kFloat));
  }
  return at::cat(biases, 0);
}

// The values as they are stored, where the kernels read that type.
at::Tensor stored_values(const Weight& weight) {
  const auto* plain = std::get_if<DenseWeight>(&weight);
  if (!plain) return dense(weight).contiguous();
  const at::ScalarType type = plain->values.scalar_type();
  const bool known = type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
  return (known ? plain->values : dense(weight)).contiguous();
}

kernels::PackType pack_type(at::ScalarType type) {
  return type == at::kHalf       ? kernels::PackType::f16
         : type == at::kBFloat16 ? kernels::PackType::bf16
                                 : kernels::PackType::f32;
}

// The type that all parts are stored in; float32 where they differ.
kernels::PackType common_type(const std::vector<PreparedWeight::Part>& parts) {
  const auto type_of = [](const PreparedWeight::Part& part) {
    const auto* plain = std::get_if<DenseWeight>(part.weight);
    return plain ? pack_type(plain->values.scalar_type()) : kernels::PackType::f32;
  };
  const kernels::PackType type = type_of(parts.front());
  const bool all = std::all_of(parts.begin(), parts.end(),
                               [&](const auto& part) { return type_of(part) == type; });
  return all ? type : kernels::PackType::f32;
}

}  // namespace

std::pair<std::int64_t, std::int64_t> outputs_of_share(std::int64_t outputs, std::int64_t panel,
                                                       int share, int shares) {
  const std::int64_t panels = (outputs + panel - 1) / panel;
  const auto cut = [&](int at) { return std::min(outputs, at * panels / shares * panel); };
  return {cut(share), cut(share + 1)};
}

void PreparedWeight::assign(const std::vector<Part>& parts, Arithmetic arithmetic) {
  inputs_ = shape_of(*parts.front().weight).in;
  outputs_ = 0;
  for (const Part& part : parts) {
    const WeightShape shape = shape_of(*part.weight);
    require(shape.in == inputs_, "weight", "layers that are multiplied together must read ",
            inputs_, " inputs, got ", shape.in);
    outputs_ += shape.out;
  }
  token_grid_ = token_grid(*parts.front().weight);
  for (const Part& part : parts) {
    require(token_grid(*part.weight) == token_grid_, "weight",
            "layers that read one input (q, k, v; gate, up) must all round it alike or none; give "
            "them the same 'activations', and FP8 to all or none");
  }
  bias_ = joined_bias(parts);
  pieces_ = 0;
  codes_ = arithmetic == Arithmetic::kQuantized ? QuantizedCodes::pack(parts) : nullptr;
  if (codes_) {
    token_grid_.reset();  // they round what they read themselves
    values_ = at::Tensor();
    return;
  }
  // Two pieces hold every float16 and nearly every value of a 4-bit grid.
  if (!pack(parts, 2)) pack(parts, 3);
}

// False if so many pieces do not hold the values exactly.
bool PreparedWeight::pack(const std::vector<Part>& parts, int pieces) {
  constexpr std::int64_t kPanel = 32;
  held_ = kernels::type_to_hold(common_type(parts));
  const std::int64_t bytes = kernels::packed_bytes(outputs_, inputs_, pieces, held_);
  const std::int64_t padded =
      outputs_ % kPanel == 0 ? 0 : kernels::packed_bytes(1, inputs_, pieces, held_);
  if (!values_.defined() || values_.numel() != bytes || values_.use_count() > 1) {
    values_ = at::Tensor();
    values_ = streamed_memory(bytes);
  }
  pieces_ = pieces;
  auto* weights = values_.mutable_data_ptr<std::uint8_t>();
  std::memset(weights + bytes - padded, 0, static_cast<std::size_t>(padded));
  std::int64_t first = 0;
  for (const Part& part : parts) {
    const at::Tensor rows = stored_values(*part.weight);
    const int needed = kernels::pack_matrix({.values = rows.const_data_ptr(),
                                             .type = pack_type(rows.scalar_type()),
                                             .first = first,
                                             .count = rows.size(0),
                                             .inner = inputs_,
                                             .pieces = pieces,
                                             .weights = weights,
                                             .held = held_});
    if (needed > pieces) return false;
    first += rows.size(0);
  }
  return true;
}

std::int64_t PreparedWeight::bytes() const {
  if (codes_) return codes_->bytes();
  return values_.defined() ? static_cast<std::int64_t>(values_.nbytes()) : 0;
}

const float* PreparedWeight::bias() const {
  return bias_.defined() ? bias_.const_data_ptr<float>() : nullptr;
}

kernels::PackedLayer PreparedWeight::layer() const {
  return {values_.const_data_ptr(), inputs_, outputs_, pieces_, bias(), held_};
}

at::Tensor PreparedWeight::multiply_into(at::Tensor out, const at::Tensor& x,
                                         const at::Tensor& added) const {
  at::Tensor flat = out.flatten(0, -2);
  at::Tensor rows = x.flatten(0, -2);
  if (token_grid_) rows = round_tokens(rows, *token_grid_);
  if (codes_) {
    if (rows.stride(1) != 1) rows = rows.contiguous();
    codes_->multiply(rows.const_data_ptr<float>(), rows.stride(0), rows.size(0),
                     {flat.mutable_data_ptr<float>(), outputs_, bias(),
                      added.defined() ? added.const_data_ptr<float>() : nullptr});
    return out;
  }
  if (rows.stride(1) != 1) rows = rows.contiguous();
  kernels::packed_product({rows.const_data_ptr<float>(), rows.stride(0), rows.size(0), layer(),
                           added.defined() ? added.const_data_ptr<float>() : nullptr,
                           flat.mutable_data_ptr<float>(), outputs_});
  return out;
}

}  // namespace attar
