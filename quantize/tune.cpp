#include "quantize/tune.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <map>

#include "compress/core/errors.h"
#include "compress/linalg/quadratic_loss.h"

namespace attar {
namespace {

const QuantizedWeight* codes_of(const Weight& weight) {
  if (const auto* codes = std::get_if<QuantizedWeight>(&weight)) return codes;
  const auto* sum = std::get_if<CorrectedWeight>(&weight);
  return sum == nullptr ? nullptr : std::get_if<QuantizedWeight>(&sum->base);
}

// Largest |a - b| / |b| of two tensors of one shape.
double largest_share(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b) / b).abs().max().item<double>();
}

}  // namespace

std::vector<bool> held_out_windows(std::int64_t count, std::int64_t held_out) {
  require(count >= 2, "held-out windows", "the text has ", count,
          " windows; one to learn from and one to judge by are the least: give more text");
  const std::int64_t judged = std::max<std::int64_t>(1, std::min(held_out, count / 2));
  std::vector<bool> judges;
  for (std::int64_t i = 0; i < count; ++i) {
    judges.push_back((i + 1) * judged / count > i * judged / count);
  }
  return judges;
}

SplitWindows split_windows(const at::Tensor& windows, std::int64_t held_out) {
  const std::vector<bool> judges = held_out_windows(windows.size(0), held_out);
  std::vector<at::Tensor> learn, judge;
  for (std::size_t i = 0; i < judges.size(); ++i) {
    (judges[i] ? judge : learn).push_back(windows[static_cast<std::int64_t>(i)]);
  }
  return {at::stack(learn), at::stack(judge)};
}

TeacherLoss::TeacherLoss(Teachers teachers, std::string loss, std::int64_t common, bool recompute,
                         std::string fingerprint)
    : teachers_(std::move(teachers)),
      common_(common),
      recompute_(recompute),
      fingerprint_(std::move(fingerprint)) {
  term_.kind = teachers_.cached       ? ResponseKind::sparse_kl
               : loss == "reverse_kl" ? ResponseKind::reverse_kl
                                      : ResponseKind::forward_kl;
}

void TeacherLoss::begin_step(const Batch& batch, std::int64_t /*step*/, std::int64_t /*steps*/) {
  teachers_.read(batch);
  next_row_ = 0;
}

std::vector<ObjectiveTerm> TeacherLoss::add_gradient(Student& student, const Batch& micro,
                                                     double scale) {
  Activations activations = student.forward(micro.ids, recompute_);
  const at::Tensor hidden = activations.normed.detach();
  at::Tensor head_gradient = student.head_gradient();
  if (head_gradient.defined()) head_gradient = head_gradient.narrow(0, 0, common_);
  const ResponseGradient found =
      response_gradient(hidden.flatten(0, 1), student.head().narrow(0, 0, common_), head_gradient,
                        teachers_.targets(micro, next_row_), {&term_, 1}, scale);
  next_row_ += micro.ids.numel();
  student.backward(activations, found.hidden.view(hidden.sizes()));
  return {{"loss", found.losses.front()}};
}

void use_own_sizes(Student& student) {
  for (Parameter& p : student.parameters()) {
    if (p.decays || p.unit.defined() || p.name.ends_with(".codes")) continue;
    const double size = p.value.detach().abs().mean(at::kDouble).item<double>();
    p.unit = at::full_like(p.value.detach(), size > 0 ? size : 1.0);
  }
}

std::int64_t layers_in_codes(const Model& model) {
  std::int64_t layers = codes_of(model.embedding()) != nullptr ? 1 : 0;
  if (!model.config().tied_head) layers += codes_of(model.head()) != nullptr ? 1 : 0;
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    const Block block = model.block(i);
    for (const Role role : roles_of(block))
      layers += codes_of(block[role].weight) != nullptr ? 1 : 0;
  }
  return layers;
}

GridMoves grid_moves(const Model& before, const Model& after, Student& student) {
  std::map<std::string, at::Tensor> learnt;
  for (const Parameter& p : student.parameters()) {
    if (p.name.ends_with(".scale")) {
      learnt[p.name] = p.average.defined() ? p.average : p.value.detach();
    }
  }
  GridMoves moves;
  double sum = 0;
  std::int64_t scales = 0;
  const auto compare = [&](const std::string& layer, const Weight& old_weight,
                           const Weight& new_weight) {
    const QuantizedWeight* old_codes = codes_of(old_weight);
    const QuantizedWeight* new_codes = codes_of(new_weight);
    if (old_codes == nullptr) return;
    ++moves.layers;
    moves.codes += new_codes->codes.ne(old_codes->codes).sum().item<std::int64_t>();
    const at::Tensor share = (new_codes->scale / old_codes->scale - 1).abs().nan_to_num(0, 0, 0);
    sum += linalg::total(share);
    scales += share.numel();
    moves.largest_move = std::max(moves.largest_move, share.max().item<double>());
    const auto found = learnt.find(layer + ".weight.scale");
    if (found == learnt.end()) return;
    moves.largest_rounding =
        std::max(moves.largest_rounding, largest_share(new_codes->scale, found->second));
  };
  compare("model.embed_tokens", before.embedding(), after.embedding());
  if (!before.config().tied_head) compare("lm_head", before.head(), after.head());
  for (std::int64_t i = 0; i < before.config().layers; ++i) {
    const Block old_block = before.block(i), new_block = after.block(i);
    for (const Role role : roles_of(new_block)) {
      compare(layer_name(i, role), old_block[role].weight, new_block[role].weight);
    }
  }
  moves.mean_move = scales > 0 ? sum / static_cast<double>(scales) : 0;
  return moves;
}

}  // namespace attar
