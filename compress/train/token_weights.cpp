#include "compress/train/token_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <vector>

#include "compress/core/forward.h"
#include "compress/train/response_gradient.h"
#include "compress/train/sparse_targets.h"

namespace attar {
namespace {

constexpr std::int64_t kTogether = 4;  // windows that go through the blocks side by side

std::vector<at::Tensor> gradients(const at::Tensor& output, const std::vector<at::Tensor>& of,
                                  const at::Tensor& back) {
  return torch::autograd::grad({output}, of, {back}, /*retain_graph=*/false,
                               /*create_graph=*/false, /*allow_unused=*/true);
}

at::Tensor leaf(const at::Tensor& x) { return x.detach().requires_grad_(true); }

// Squared lengths of gradients [B, T, width] by place, over the windows: adds to `total` [T].
void add_squares(const at::Tensor& gradient, at::Tensor total) {
  if (gradient.defined()) total.add_(gradient.square().sum(2, false, at::kDouble).sum(0));
}

// Windows [B, T] through all blocks and back.
class Windows {
 public:
  Windows(const Model& model, const RopeTable& rope, const RunContext& context)
      : model_(model), rope_(rope), context_(context), head_(dense(model.head())) {}

  // Adds to `totals` [layers, sites, T] double; `first` is the number of the first window.
  void add(const at::Tensor& ids, std::int64_t first, const at::Tensor& totals) const {
    const ModelConfig& config = model_.config();
    std::vector<at::Tensor> inputs{embed(model_.embedding(), ids)};
    for (std::int64_t i = 0; i < config.layers; ++i) {
      context_.check_stop();
      const at::NoGradGuard none;
      inputs.push_back(block_forward(config, model_.block(i), rope_, inputs.back()));
      model_.done_with_block(i);
    }
    at::Tensor back = below_the_head(inputs.back(), first);
    for (std::int64_t i = config.layers; i-- > 0;) {
      context_.check_stop();
      inputs.pop_back();
      back = through_block(i, inputs.back(), back, totals[i]);
    }
  }

 private:
  at::Tensor below_the_head(const at::Tensor& states, std::int64_t first) const {
    const at::Tensor x = leaf(states);
    const at::Tensor normed = rms_norm(x, model_.final_norm(), model_.config().norm_eps);
    const at::Tensor rows = normed.detach().flatten(0, 1);
    ResponseTargets targets;
    targets.tokens = drawn_tokens(rows, head_, context_.seed, first * states.size(1));
    const ResponseTerm term;  // -log q[target]
    const ResponseGradient found = response_gradient(rows, head_, {}, targets, {&term, 1}, 1.0);
    return gradients(normed, {x}, found.hidden.view(normed.sizes())).front();
  }

  at::Tensor through_block(std::int64_t index, const at::Tensor& input, const at::Tensor& back,
                           at::Tensor totals) const {
    const at::Tensor x = leaf(input);
    BlockOutputs at;
    const at::Tensor output = block_forward(model_.config(), model_.block(index), rope_, x, &at);
    model_.done_with_block(index);
    std::vector<at::Tensor> outputs = {at.gate, at.up};
    std::vector<Site> sites = {Site::kMlpInput, Site::kMlpInput};
    if (at.query.defined()) {
      outputs.insert(outputs.end(), {at.query, at.key, at.value, at.between});
      sites.insert(sites.end(), 3, Site::kAttentionInput);
      sites.push_back(Site::kOutputInput);
    }
    outputs.push_back(x);
    const std::vector<at::Tensor> found = gradients(output, outputs, back);
    const auto add = [&](Site site, const at::Tensor& gradient) {
      add_squares(gradient, totals[static_cast<std::int64_t>(index_of(site))]);
    };
    for (std::size_t i = 0; i < sites.size(); ++i) add(sites[i], found[i]);
    add(Site::kDownInput, back);
    return found.back();
  }

  const Model& model_;
  const RopeTable& rope_;
  const RunContext& context_;
  at::Tensor head_;
};

// Means over places [0], [1], [2, 3], [4, 7], ... of [T] double, divided by the mean of all.
void smooth(at::Tensor places) {
  const std::int64_t length = places.size(0);
  const double mean = places.mean().item<double>();
  if (!(mean > 0)) {
    places.fill_(1);
    return;
  }
  for (std::int64_t begin = 0, end = 1; begin < length; begin = end, end *= 2) {
    at::Tensor part = places.narrow(0, begin, std::min(end, length) - begin);
    part.fill_(part.mean().item<double>() / mean);
  }
}

}  // namespace

TokenWeights token_weights(const Model& model, const at::Tensor& ids, std::int64_t windows,
                           const RunContext& context) {
  const ModelConfig& config = model.config();
  const std::int64_t length = ids.size(1), count = std::min(windows, ids.size(0));
  at::Tensor totals =
      at::zeros({config.layers, static_cast<std::int64_t>(kSites.size()), length}, at::kDouble);
  const RopeTable rope = rope_table(config, length);
  const Windows through(model, rope, context);
  TokenWeights found;
  for (std::int64_t first = 0; first < count; first += kTogether) {
    const std::int64_t together = std::min(kTogether, count - first);
    context.progress("token weights, windows " + std::to_string(first + together) + " of " +
                     std::to_string(count));
    const at::Tensor own = at::zeros_like(totals);
    through.add(ids.narrow(0, first, together), first, own);
    const bool finite = own.isfinite().all().item<bool>();
    (finite ? found.windows : found.dropped) += together;
    if (finite) totals.add_(own);
  }
  model.done_with_outer();
  if (found.windows == 0) return found;
  for (std::int64_t i = 0; i < config.layers; ++i) {
    for (const Site site : kSites) smooth(totals[i][static_cast<std::int64_t>(index_of(site))]);
  }
  found.weights = totals.to(at::kFloat);
  return found;
}

std::int64_t token_weights_bytes(const ModelConfig& config, std::int64_t length) {
  const std::int64_t rows = kTogether * length;
  const std::int64_t states = rows * config.hidden * (config.layers + 4);
  // Of one block: every step's result and its gradient.
  const std::int64_t block =
      2 * rows *
      (2 * config.q_width() + 2 * config.kv_width() + 4 * config.hidden + 3 * config.ffn);
  const std::int64_t head = config.vocabulary * (config.hidden + 2 * 256);
  return 4 * (states + block + head);
}

}  // namespace attar
