#include "compress/formats/weight_rows.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/index_select.h>

namespace attar {

at::Tensor dense_rows(const Weight& weight, std::int64_t begin, std::int64_t end) {
  const std::int64_t count = end - begin;
  if (const auto* plain = std::get_if<DenseWeight>(&weight)) {
    return plain->values.narrow(0, begin, count).to(at::kFloat);
  }
  if (const auto* quantized = std::get_if<QuantizedWeight>(&weight)) {
    QuantizedWeight part{quantized->scheme,
                         quantized->codes.narrow(0, begin, count),
                         quantized->scale.narrow(0, begin, count),
                         {}};
    if (quantized->zero.defined()) part.zero = quantized->zero.narrow(0, begin, count);
    return dense(part);
  }
  return dense(weight).narrow(0, begin, count);
}

Weight select_rows(const Weight& weight, const at::Tensor& order) {
  if (const auto* plain = std::get_if<DenseWeight>(&weight)) {
    return DenseWeight{at::index_select(plain->values, 0, order)};
  }
  if (const auto* quantized = std::get_if<QuantizedWeight>(&weight)) {
    QuantizedWeight selected{quantized->scheme,
                             at::index_select(quantized->codes, 0, order),
                             at::index_select(quantized->scale, 0, order),
                             {}};
    if (quantized->zero.defined()) selected.zero = at::index_select(quantized->zero, 0, order);
    return selected;
  }
  return DenseWeight{at::index_select(dense(weight), 0, order)};
}

at::Tensor interleaved(std::int64_t heads, std::int64_t head_dim) {
  const at::Tensor rows = at::arange(heads * head_dim, at::kLong);
  return rows.view({heads, 2, head_dim / 2}).transpose(1, 2).reshape({-1});
}

at::Tensor halves(std::int64_t heads, std::int64_t head_dim) {
  const at::Tensor rows = at::arange(heads * head_dim, at::kLong);
  return rows.view({heads, head_dim / 2, 2}).transpose(1, 2).reshape({-1});
}

}  // namespace attar
