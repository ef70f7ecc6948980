#include "quantize/embedding.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>

#include "compress/core/block_runner.h"
#include "compress/linalg/quadratic_loss.h"

namespace attar {
namespace {

constexpr std::int64_t kRows = 8192;  // rounded at a time

}  // namespace

linalg::GramStatistics head_statistics(const Model& model, const at::Tensor& ids,
                                       const RunContext& context) {
  const ModelConfig& config = model.config();
  const RopeTable rope = rope_table(config, ids.size(1));
  at::Tensor hidden = embed(model.embedding(), ids);
  for (std::int64_t index = 0; index < config.layers; ++index) {
    context.progress("block " + std::to_string(index));
    const Block block = model.block(index);
    const BlockRunner runner(config, block, rope);
    for (std::int64_t sequence = 0; sequence < hidden.size(0); ++sequence) {
      context.check_stop();
      runner.advance(hidden.narrow(0, sequence, 1));
    }
    model.done_with_block(index);
  }
  linalg::GramAccumulator sums(config.hidden);
  const at::Tensor norm = model.final_norm();
  for (std::int64_t sequence = 0; sequence < hidden.size(0); ++sequence) {
    sums.add(rms_norm(hidden.select(0, sequence), norm, config.norm_eps));
  }
  return sums.finish();
}

GptqResult gptq_rows(const Weight& weight, const at::Tensor& hessian, const QuantScheme& scheme,
                     const GptqOptions& options, std::string_view where) {
  const at::Tensor values = dense(weight);
  std::vector<at::Tensor> codes, scales, zeros;
  GptqResult whole;
  double all = 0;
  const linalg::SweepHessian prepared =
      linalg::prepare_hessian(hessian, options.act_order, options.damping, where);
  for (std::int64_t first = 0; first < values.size(0); first += kRows) {
    const at::Tensor rows =
        values.narrow(0, first, std::min(kRows, values.size(0) - first)).contiguous();
    GptqResult part = gptq_quantize(rows, prepared, scheme, options, where);
    const double size = linalg::hessian_loss(rows, at::zeros_like(rows), hessian);
    all += size;
    codes.push_back(part.weight.codes);
    scales.push_back(part.weight.scale);
    if (part.weight.zero.defined()) zeros.push_back(part.weight.zero);
    const double loss = whole.loss + part.loss * size, rtn = whole.rtn_loss + part.rtn_loss * size;
    const double gap = std::max(whole.identity_gap, part.identity_gap);
    const bool plainly = whole.rounded_plainly || part.rounded_plainly;
    whole = std::move(part);
    whole.loss = loss, whole.rtn_loss = rtn, whole.identity_gap = gap;
    whole.rounded_plainly = plainly;
  }
  whole.weight = {scheme, at::cat(codes), at::cat(scales),
                  zeros.empty() ? at::Tensor() : at::cat(zeros)};
  if (all > 0) whole.loss /= all, whole.rtn_loss /= all;
  return whole;
}

}  // namespace attar
