#include "compress/core/block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/isfinite.h>

#include "compress/core/errors.h"
#include "compress/core/forward.h"
#include "compress/core/gradients.h"
#include "compress/core/quantized_linear.h"

namespace attar {
namespace {

bool finite(const at::Tensor& t) {
  return !t.defined() || !t.is_floating_point() || at::isfinite(t).all().item<bool>();
}

bool finite(const Weight& weight) {
  struct Finite {
    bool operator()(const DenseWeight& w) const { return finite(w.values); }
    bool operator()(const QuantizedWeight& w) const { return finite(w.scale) && finite(w.zero); }
    bool operator()(const SparseWeight& w) const { return finite(w.values); }
    bool operator()(const LowRankWeight& w) const { return finite(w.a) && finite(w.b); }
    bool operator()(const CorrectedWeight& w) const {
      return std::visit(*this, w.base) && (*this)(w.correction);
    }
  };
  return std::visit(Finite{}, weight);
}

// x W^T + bias; what is in codes keeps them instead of dense values where gradients will be asked.
at::Tensor product(const at::Tensor& input, const Weight& weight, const at::Tensor& bias) {
  const auto* codes = std::get_if<QuantizedWeight>(&weight);
  if (codes != nullptr && (input.requires_grad() || codes->scale.requires_grad())) {
    return quantized_linear_with_gradient(input, *codes, bias);
  }
  const auto* plain = std::get_if<DenseWeight>(&weight);
  return linear_with_gradient(input, plain ? plain->values : dense(weight), bias);
}

}  // namespace

at::Tensor Linear::forward(const at::Tensor& given) const {
  const auto grid = token_grid(weight);
  const at::Tensor input = grid ? round_tokens(given, *grid) : given;
  if (const auto* low_rank = std::get_if<LowRankWeight>(&weight)) {
    const at::Tensor inner = linear_with_gradient(input, low_rank->a.to(at::kFloat), {});
    return linear_with_gradient(inner, low_rank->b.to(at::kFloat), bias);
  }
  if (const auto* sum = std::get_if<CorrectedWeight>(&weight)) {
    const Weight base = std::visit([](const auto& w) -> Weight { return w; }, sum->base);
    const at::Tensor inner = linear_with_gradient(input, sum->correction.a.to(at::kFloat), {});
    return product(input, base, bias) +
           linear_with_gradient(inner, sum->correction.b.to(at::kFloat), {});
  }
  return product(input, weight, bias);
}

BlockWidths widths_of(const Block& block, std::int64_t head_dim) {
  return {shape_of(block[Role::kGate].weight).out,
          shape_of(block[Role::kQuery].weight).out / head_dim,
          shape_of(block[Role::kKey].weight).out / head_dim};
}

bool attends(const Block& block) { return block[Norm::kAttention].defined(); }

std::span<const Role> roles_of(const Block& block) {
  return std::span(kRoles).subspan(attends(block) ? 0 : index_of(Role::kGate));
}

std::span<const Site> sites_of(const Block& block) {
  return std::span(kSites).subspan(attends(block) ? 0 : index_of(Site::kMlpInput));
}

Block without_attention(Block block) {
  for (const Norm norm : {Norm::kAttention, Norm::kQuery, Norm::kKey}) block[norm].reset();
  for (const Role role : {Role::kQuery, Role::kKey, Role::kValue, Role::kOutput}) block[role] = {};
  return block;
}

void check(const Block& block, const ModelConfig& model, std::string_view where) {
  const BlockWidths widths = widths_of(block, model.head_dim);
  const ModelConfig config = model.with(widths);
  for (const Norm norm : norms_of(config)) {
    const std::int64_t width = width_of(config, norm);
    require(block[norm].defined() && block[norm].dim() == 1 && block[norm].size(0) == width, where,
            short_name(norm), " must hold ", width, " values");
  }
  require(config.ffn > 0 && widths.heads_divide(), where, "has ", config.heads,
          " attention heads for ", config.kv_heads, " key-value heads and ", config.ffn,
          " neurons; there must be neurons, and the second must divide the first");
  require(widths.attends() == attends(block), where,
          "must have a norm before attention and heads, or neither");
  for (const Role role : roles_of(block)) {
    const std::string name = std::string(where) + " " + std::string(short_name(role));
    const Linear& linear = block[role];
    check(linear.weight, name);
    const auto [out, in] = shape_of(linear.weight);
    const LinearShape expected = shape_of(config, role);
    require(out == expected.out && in == expected.in, name, "weight must be [", expected.out, ", ",
            expected.in, "] beside the block's other layers, got [", out, ", ", in, "]");
    require(!linear.bias.defined() || linear.bias.numel() == out, name, "bias must hold ", out,
            " values");
  }
}

void check_finite(const Block& block, std::int64_t index) {
  const auto refuse = [&](bool holds, std::string_view tensor) {
    require<NumericRefusal>(holds,
                            "model.layers." + std::to_string(index) + "." + std::string(tensor),
                            "holds a NaN or an infinity; the file is damaged or was saved from a "
                            "diverged run");
  };
  for (const Norm norm : kNorms) {
    refuse(finite(block[norm]), std::string(short_name(norm)) + ".weight");
  }
  for (const Role role : kRoles) {
    refuse(finite(block[role].weight), std::string(short_name(role)) + ".weight");
    refuse(finite(block[role].bias), std::string(short_name(role)) + ".bias");
  }
}

}  // namespace attar
