#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

#include <optional>

#include "compress/calibrate/layer_walk.h"
#include "compress/core/grid.h"
#include "compress/core/rules.h"
#include "compress/linalg/quadratic_loss.h"
#include "compress/linalg/sweep_input.h"
#include "prune/magnitude.h"
#include "prune/passes.h"
#include "prune/sparsegpt.h"
#include "prune/wanda.h"

namespace attar {
namespace {

at::ScalarType scale_type_of(const std::string& name) {
  return name == "f16" ? at::kHalf : name == "bf16" ? at::kBFloat16 : at::kFloat;
}

// Values that a mask alone has chosen, in the type that they came in.
at::Tensor in_own_type(const at::Tensor& values, const Weight& before) {
  const auto* plain = std::get_if<DenseWeight>(&before);
  return plain ? values.to(plain->values.scalar_type()) : values;
}

// |W x - W' x|^2 / |W x|^2 under the statistics, or of the weights alone where there are none.
double relative_loss(const at::Tensor& weight, const at::Tensor& values,
                     const at::Tensor& hessian) {
  if (hessian.defined()) {
    const double size = linalg::hessian_loss(at::zeros_like(weight), weight, hessian);
    return size > 0 ? linalg::hessian_loss(weight, values, hessian) / size : 0.0;
  }
  const double size = linalg::total(weight.square());
  return size > 0 ? linalg::total((values - weight).square()) / size : 0.0;
}

}  // namespace

SparsePass::SparsePass(SparseConfig config)
    : config_(std::move(config)), pattern_(pattern_from(config_.pattern, config_.sparsity, kName)) {
  require<UsageError>(config_.bits != 1, kName, "bits must be 0 or in [2, 8], got 1");
  if (pattern_.in_groups()) {
    refuse_idle(config_, {"sparsity"}, kName, "pattern: unstructured cuts a share of all");
  }
  if (config_.method != "sparsegpt") {
    refuse_idle(config_, {"damping", "towards_dense", "follow", "refits"}, kName,
                "it is sparsegpt's: leave it out, or set method: sparsegpt");
  }
  if (config_.bits != 0) {
    refuse_idle(config_, {"refits"}, kName,
                "values that are rounded are not refitted: leave it out");
  }
  if (config_.bits == 0) {
    refuse_idle(config_, {"group_size", "symmetric", "scale_type", "search"}, kName,
                "it says how what stays is rounded: leave it out, or set bits");
  }
}

SparsePass::Decision SparsePass::decide(std::int64_t block, Role role) const {
  if (const std::string* skipped = first_match(config_.skip, block, role)) {
    return {false, "skip '" + *skipped + "'"};
  }
  if (const std::string* chosen = first_match(config_.layers, block, role)) {
    return {true, "layers '" + *chosen + "'"};
  }
  return {false, "no pattern of layers"};
}

std::optional<QuantScheme> SparsePass::scheme() const {
  if (config_.bits == 0) return std::nullopt;
  return QuantScheme{config_.bits, config_.group_size,
                     config_.symmetric ? ZeroPoint::kSymmetric : ZeroPoint::kInteger,
                     scale_type_of(config_.scale_type)};
}

std::string SparsePass::action() const {
  std::string text = config_.method + " " + describe(pattern_);
  if (const auto grid = scheme()) {
    text += " W" + std::to_string(grid->bits) +
            (grid->group_size == 0 ? " row" : " g" + std::to_string(grid->group_size)) + " " +
            std::string(to_string(grid->zero_point));
  }
  return text;
}

std::vector<PlannedLayer> SparsePass::plan(const ModelConfig& config) const {
  require_matches(config_.layers, config, std::string(kName) + ".layers");
  require_matches(config_.skip, config, std::string(kName) + ".skip");
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      const Decision decision = decide(block, role);
      PlannedLayer layer{block, role, decision.prunes, decision.rule, "unchanged"};
      if (decision.prunes) {
        const std::int64_t in = shape_of(config, block, role).in;
        check_pattern(pattern_, in, layer_name(block, role));
        layer.scheme = scheme();
        if (layer.scheme) {
          const std::int64_t group = layer.scheme->group_size;
          require<DoesNotFit>(group == 0 || in % group == 0, kName,
                              "group_size must divide input features, got group_size=", group,
                              ", input features=", in, " (layer '", layer_name(block, role), "')");
        }
        layer.compensates = layer.scheme && config_.method == "sparsegpt";
        layer.density = pattern_.density();
        layer.action = action();
        if (const auto later = filled_.find({block, role}); later != filled_.end()) {
          layer.action += "; its zeros are lost to '" + later->second + "'";
        }
      }
      planned.push_back(std::move(layer));
    }
  }
  return planned;
}

void SparsePass::see_later(std::span<const PassPlan> plans) {
  filled_.clear();
  for (const PassPlan& plan : plans) {
    for (const PlannedLayer& layer : plan.layers) {
      if ((layer.changes || layer.recodes) && !layer.keeps_zeros) {
        filled_.try_emplace({layer.block, layer.role}, layer.action);
      }
    }
  }
}

std::int64_t SparsePass::working_bytes(const ModelConfig& config) const {
  if (config_.method == "magnitude") return 4 * 4 * config.hidden * config.ffn;
  if (config_.method == "wanda") {  // the Grams of all inputs, one in float32 beside
    const std::int64_t widest = widest_input(config);
    std::int64_t grams = 4 * widest * widest;
    for (const Role role : {Role::kQuery, Role::kOutput, Role::kGate, Role::kDown}) {
      const std::int64_t in = shape_of(config, role).in;
      grams += 8 * in * in;
    }
    return grams + 4 * 4 * config.hidden * config.ffn;
  }
  // Of a layer: the weight, its aim and what the residual stream has lost, the sweep's values and,
  // while they are refitted, five matrices beside them. Of its input: H, a copy while it is
  // factored or damped (float64), the factor, H and what the unchanged model's inputs differ by
  // (float32).
  std::int64_t most = 0;
  for (const Role role : kRoles) {
    const LinearShape shape = shape_of(config, role);
    const std::int64_t weight = shape.out * shape.in;
    most = std::max(most, 28 * shape.in * shape.in + 11 * 4 * weight);
  }
  return most;
}

at::Tensor SparsePass::cut_by_sparsegpt(BlockWork& work, Role role, const at::Tensor& target,
                                        const linalg::SweepHessian& hessian,
                                        Clock::time_point since) const {
  const std::string layer = layer_name(work.index, role);
  SparseGptOptions options;
  options.damping = config_.damping;
  options.scheme = scheme();
  options.search = config_.search;
  options.refits = config_.refits;
  options.cut_plainly_on_failure = !work.context.strict;
  SparseGptResult result = sparsegpt_prune(target, hessian, pattern_, options, layer);
  record_sweep(work, layer, result.dead_columns.size(), result.fallbacks,
               result.cut_plainly ? "magnitude_fallback" : "damping");
  Weight after = result.quantized ? Weight(*result.quantized) : Weight(to_sparse(result.values));
  record_changed(work, role, std::move(after), action(), result.loss, result.magnitude_loss, since);
  return result.keep;
}

at::Tensor SparsePass::cut_by_mask(BlockWork& work, Role role, const at::Tensor& gram) const {
  const auto since = std::chrono::steady_clock::now();
  const Weight& before = work.block[role].weight;
  const at::Tensor weight = dense(before);
  check_finite(weight, layer_name(work.index, role));
  const at::Tensor smallest = magnitude_mask(weight, pattern_);
  const at::Tensor keep = config_.method == "wanda" ? wanda_mask(weight, gram, pattern_) : smallest;
  at::Tensor values = weight * keep;
  const double baseline = relative_loss(weight, weight * smallest, gram);
  Weight after = to_sparse(in_own_type(values, before));
  if (const auto grid = scheme()) {
    QuantizedWeight rounded =
        quantize_to_grid(values, choose_grid(values, *grid, {config_.search, false}));
    values = dense(Weight(rounded));
    after = std::move(rounded);
  }
  record_changed(work, role, std::move(after), action(), relative_loss(weight, values, gram),
                 baseline, since);
  return keep;
}

template <class Cut>
void SparsePass::each_layer(BlockWork& work, Site site, const Cut& cut) const {
  for (const Role role : roles_of(work.block)) {
    if (site_of(role) != site) continue;
    if (const Decision decision = decide(work.index, role); decision.prunes) {
      work.context.check_stop();
      work.kept[index_of(role)] = cut(role).to(at::kBool);  // codes may round what stays to 0
    } else {
      record_skipped(work, role, decision.rule);
    }
  }
}

void SparsePass::run_sparsegpt(BlockWork& work) const {
  const auto at_site = [&](Site site, const linalg::GramStatistics& statistics,
                           linalg::CrossGram* cross) {
    record_dropped(work, site, statistics);
    std::optional<linalg::SweepInput> input;
    each_layer(work, site, [&](Role role) {
      const auto since = std::chrono::steady_clock::now();
      if (!input) {
        input.emplace(statistics.gram, cross,
                      linalg::SweepInputOptions{/*act_order=*/false, config_.damping,
                                                config_.towards_dense, config_.follow},
                      layer_name(work.index, role));
      }
      const at::Tensor target =
          input->aim(dense(work.block[role].weight), dense(work.original[role].weight));
      if (role == Role::kOutput || role == Role::kDown) input->done_aiming();  // read it alone
      return cut_by_sparsegpt(work, role, target, input->hessian(), since);
    });
  };
  work.stream->sequential(work.block, aims() ? &work.original : nullptr, work.context, at_site);
}

void SparsePass::run_block(BlockWork& work) const {
  if (config_.method == "sparsegpt") {
    run_sparsegpt(work);
    return;
  }
  if (config_.method == "magnitude") {
    for (const Site site : sites_of(work.block)) {
      each_layer(work, site, [&](Role role) { return cut_by_mask(work, role, {}); });
    }
    return;
  }
  // Wanda makes up for nothing, so nothing is gained by knowing what was lost in this block.
  const auto statistics = work.stream->collect(work.block, work.context);
  for (const Site site : sites_of(work.block)) {
    const linalg::GramStatistics& inputs = *statistics[index_of(site)];
    record_dropped(work, site, inputs);
    each_layer(work, site, [&](Role role) { return cut_by_mask(work, role, inputs.gram); });
  }
}

}  // namespace attar
