#include "compress/train/student.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include "compress/core/errors.h"
#include "compress/core/group_rule.h"
#include "compress/core/quantized_linear.h"

namespace attar {
namespace {

// Adds rows to rows of `total` in their order; threads share the columns.
void add_rows(const at::Tensor& ids, const at::Tensor& rows, const at::Tensor& total) {
  const at::Tensor flat = ids.flatten().contiguous(), from = rows.contiguous();
  const std::int64_t count = flat.numel(), columns = total.size(1);
  const auto* id = flat.const_data_ptr<std::int64_t>();
  const float* source = from.const_data_ptr<float>();
  float* out = total.mutable_data_ptr<float>();
  at::parallel_for(0, columns, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = 0; r < count; ++r) {
      float* to = out + id[r] * columns;
      const float* row = source + r * columns;
      for (std::int64_t c = begin; c < end; ++c) to[c] += row[c];
    }
  });
}

// A leaf of one's own: never the bytes of a file.
at::Tensor leaf_of(const at::Tensor& value) {
  return value.detach()
      .to(at::kFloat, /*non_blocking=*/false, /*copy=*/true)
      .contiguous()
      .requires_grad_(true);
}

}  // namespace

std::size_t Student::learn(std::string name, at::Tensor& value, bool decays) {
  value = leaf_of(value);
  parameters_.push_back({.name = std::move(name), .value = value, .decays = decays});
  return parameters_.size() - 1;
}

void Student::learn_grid(const std::string& name, QuantizedWeight& weight,
                         std::vector<std::size_t>& members) {
  if (!scales_learn(weight.scheme)) return;
  const at::Tensor unit = weight.scale.detach().abs().clone();
  members.push_back(learn(name + ".scale", weight.scale, false));
  parameters_.back().unit = unit;
  if (weight.scheme.zero_point != ZeroPoint::kMinimum) return;
  members.push_back(learn(name + ".minimum", weight.zero, false));
  parameters_.back().unit = unit;
}

void Student::learn(const std::string& name, Weight& weight, const Learning& learning,
                    std::vector<std::size_t>& members) {
  const auto factors = [&](LowRankWeight& low_rank, const std::string& part) {
    members.push_back(learn(name + part + ".a", low_rank.a, true));
    members.push_back(learn(name + part + ".b", low_rank.b, true));
  };
  if (auto* sum = std::get_if<CorrectedWeight>(&weight)) {
    if (learning.corrections) factors(sum->correction, ".correction");
    auto* base = std::get_if<QuantizedWeight>(&sum->base);
    if (learning.scales && base != nullptr) learn_grid(name, *base, members);
    return;
  }
  if (auto* codes = std::get_if<QuantizedWeight>(&weight)) {
    if (learning.scales) learn_grid(name, *codes, members);
    if (!learning.from_codes || !learning.weights) return;
    weight = DenseWeight{dense(weight)};
  }
  if (!learning.weights) return;
  if (auto* sparse = std::get_if<SparseWeight>(&weight)) {
    weight = DenseWeight{dense(*sparse)};
    auto& values = std::get<DenseWeight>(weight).values;
    members.push_back(learn(name, values, true));
    parameters_.back().keep = values.detach().ne(0).to(at::kFloat);
  } else if (auto* plain = std::get_if<DenseWeight>(&weight)) {
    members.push_back(learn(name, plain->values, true));
  } else if (auto* low_rank = std::get_if<LowRankWeight>(&weight)) {
    factors(*low_rank, "");
  }
}

void Student::learn_rows(const std::string& name, Weight& rows, const Learning& learning,
                         std::size_t& index, OuterGrid& grid) {
  auto* codes = std::get_if<QuantizedWeight>(&rows);
  if (codes && learning.scales) {
    learn_grid(name, *codes, grid.members);
    if (!grid.members.empty()) grid.sum = at::zeros(codes->codes.sizes(), at::kFloat);
  } else if (learning.embedding && (codes == nullptr || learning.from_codes)) {
    rows = DenseWeight{dense(rows)};
    index = learn(name, std::get<DenseWeight>(rows).values, true);
  }
}

Student::Student(const Model& model, const Learning& learning)
    : config_(model.config()),
      embedding_(model.embedding()),
      head_(model.head()),
      final_norm_(model.final_norm()) {
  parameters_.reserve(static_cast<std::size_t>(config_.layers) * 26 + 5);
  learn_rows("model.embed_tokens.weight", embedding_, learning, embedding_index_, embedding_grid_);
  for (std::int64_t i = 0; i < config_.layers; ++i) {
    const std::string name = "model.layers." + std::to_string(i) + ".";
    Block block = model.block(i);
    std::vector<std::size_t> members;
    if (learning.norms) {
      for (const Norm norm : kNorms) {
        if (!block[norm].defined()) continue;
        const std::string tensor = name + std::string(short_name(norm)) + ".weight";
        members.push_back(learn(tensor, block[norm], false));
      }
    }
    std::vector<LearntLayer> learnt;
    for (const Role role : roles_of(block)) {
      const std::string layer = name + std::string(short_name(role));
      if (learning.leaves_out && learning.leaves_out(i, role)) continue;
      Weight& weight = block[role].weight;
      if (const auto* codes = std::get_if<QuantizedWeight>(&weight);
          codes != nullptr && learning.codes) {
        learnt.push_back({role, LearntCodes(*codes, learning.scales, parameters_, layer + ".weight",
                                            learning.code_rate, learning.seed)});
        weight = DenseWeight{learnt.back().codes.values()};
      } else {
        learn(layer + ".weight", weight, learning, members);
      }
      if (learning.norms && block[role].bias.defined()) {
        members.push_back(learn(layer + ".bias", block[role].bias, false));
      }
    }
    blocks_.push_back(std::move(block));
    members_.push_back(std::move(members));
    learnt_.push_back(std::move(learnt));
    model.done_with_block(i);
  }
  if (learning.norms) norm_index_ = learn("model.norm.weight", final_norm_, false);
  if (config_.tied_head) {
    head_ = embedding_;
    head_index_ = embedding_index_;
    head_grid_ = embedding_grid_;
  } else {
    learn_rows("lm_head.weight", head_, learning, head_index_, head_grid_);
  }
  head_values_ = dense(head_).detach();
  follow_parameters();
  require<UsageError>(!parameters_.empty(), "train",
                      "nothing of this model learns: it has no part that learn: names; add a "
                      "correction first (lowrank.correct, train.lora), or name another part");
}

void Student::follow_parameters() {
  const at::NoGradGuard none;
  for (std::vector<LearntLayer>& layers : learnt_) {
    for (LearntLayer& layer : layers) layer.codes.write(parameters_);
  }
}

const RopeTable& Student::rope(std::int64_t length) const {
  require<UsageError>(length <= config_.max_positions, "train", "length must be at most the ",
                      config_.max_positions, " positions of the model, got ", length);
  if (!rope_.cos.defined() || rope_.cos.size(0) < length) rope_ = rope_table(config_, length);
  return rope_;
}

at::Tensor Student::head() const {
  return head_grid_.members.empty() ? head_values_ : dense(head_).detach();
}

at::Tensor Student::head_gradient() const {
  return head_index_ == kNone ? head_grid_.sum : parameters_[head_index_].gradient;
}

Activations Student::forward(const at::Tensor& ids, bool recompute) const {
  const RopeTable& table = rope(ids.size(1));
  Activations kept;
  kept.ids = ids;
  at::Tensor x;
  {
    const at::NoGradGuard none;
    x = embed(embedding_, ids);
  }
  for (const Block& block : blocks_) {
    x = x.detach().requires_grad_(true);
    kept.inputs.push_back(x);
    if (recompute) {
      const at::NoGradGuard none;
      x = block_forward(config_, block, table, x);
      kept.outputs.emplace_back();
    } else {
      x = block_forward(config_, block, table, x);
      kept.outputs.push_back(x);
    }
  }
  kept.inputs.push_back(x.detach().requires_grad_(true));
  kept.normed = rms_norm(kept.inputs.back(), final_norm_, config_.norm_eps);
  return kept;
}

void Student::add_gradient(std::size_t index, const at::Tensor& gradient) {
  const Parameter& p = parameters_[index];
  p.gradient.add_(p.unit.defined() ? gradient * p.unit : gradient);
}

void Student::add_grid_gradient(OuterGrid& grid, const Weight& weight) {
  if (grid.members.empty()) return;
  const GridGradient found = grid_gradient(grid.sum, std::get<QuantizedWeight>(weight));
  add_gradient(grid.members.front(), found.scale);
  if (found.minimum.defined()) add_gradient(grid.members.back(), found.minimum);
  grid.sum.zero_();
}

std::vector<at::Tensor> Student::block_leaves(std::int64_t index) const {
  std::vector<at::Tensor> leaves;
  for (const std::size_t member : members_[static_cast<std::size_t>(index)]) {
    leaves.push_back(parameters_[member].value);
  }
  for (const LearntLayer& layer : learnt_[static_cast<std::size_t>(index)]) {
    leaves.push_back(layer.codes.values());
  }
  return leaves;
}

void Student::add_block_gradients(std::int64_t index, const std::vector<at::Tensor>& gradients) {
  const at::NoGradGuard none;
  const auto& members = members_[static_cast<std::size_t>(index)];
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (gradients[i].defined()) add_gradient(members[i], gradients[i]);
  }
  const auto& layers = learnt_[static_cast<std::size_t>(index)];
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const at::Tensor& gradient = gradients[members.size() + i];
    if (gradient.defined()) layers[i].codes.add_gradient(gradient, parameters_);
  }
}

void Student::backward(Activations& activations, const at::Tensor& gradient,
                       const std::function<void(std::int64_t, at::Tensor&)>& add_own) {
  const auto through = [](const at::Tensor& output, std::vector<at::Tensor> leaves,
                          const at::Tensor& input, const at::Tensor& back) {
    leaves.push_back(input);
    return torch::autograd::grad({output}, leaves, {back}, /*retain_graph=*/false,
                                 /*create_graph=*/false, /*allow_unused=*/true);
  };
  const RopeTable& table = rope(activations.ids.size(1));
  std::vector<at::Tensor> leaves;
  if (norm_index_ != kNone) leaves.push_back(parameters_[norm_index_].value);
  auto found = through(activations.normed, leaves, activations.inputs.back(), gradient);
  activations.normed = at::Tensor();
  at::Tensor back = found.back();
  const at::NoGradGuard none;
  if (norm_index_ != kNone) add_gradient(norm_index_, found.front());
  for (std::int64_t i = config_.layers; i-- > 0;) {
    if (add_own) add_own(i + 1, back);
    const auto at = static_cast<std::size_t>(i);
    {
      const at::AutoGradMode with(true);
      at::Tensor& output = activations.outputs[at];
      if (!output.defined()) {
        output = block_forward(config_, blocks_[at], table, activations.inputs[at]);
      }
      found = through(output, block_leaves(i), activations.inputs[at], back);
      output = at::Tensor();
    }
    back = found.back();
    found.pop_back();
    add_block_gradients(i, found);
    activations.inputs[at + 1] = at::Tensor();
  }
  if (add_own) add_own(0, back);
  if (embedding_index_ != kNone) {
    add_rows(activations.ids, back, parameters_[embedding_index_].gradient);
  }
  if (embedding_grid_.sum.defined()) add_rows(activations.ids, back, embedding_grid_.sum);
  add_grid_gradient(embedding_grid_, embedding_);
  if (!config_.tied_head) add_grid_gradient(head_grid_, head_);
}

at::Tensor Student::settled(const at::Tensor& value, bool averaged) const {
  if (!value.defined()) return value;
  if (averaged && value.requires_grad()) {
    for (const Parameter& p : parameters_) {
      if (p.value.is_same(value) && p.average.defined()) return p.average;
    }
  }
  return value.detach();
}

QuantizedWeight Student::settled(const QuantizedWeight& weight, bool averaged) const {
  QuantizedWeight result = weight;
  const at::ScalarType type = weight.scheme.scale_type;
  if (weight.scale.requires_grad()) {
    result.scale = as_stored(settled(weight.scale, averaged), type, round_scale);
  }
  if (weight.zero.defined() && weight.zero.requires_grad()) {
    result.zero = as_stored(settled(weight.zero, averaged), type, round_to);
  }
  return result;
}

LowRankWeight Student::settled(const LowRankWeight& weight, bool averaged) const {
  LowRankWeight result{settled(weight.b, averaged), settled(weight.a, averaged)};
  const bool learnt = weight.b.requires_grad() || weight.a.requires_grad();
  result.code_bytes = learnt ? 0 : weight.code_bytes;  // what learnt left the grid
  return result;
}

Weight Student::settled(const Weight& weight, bool averaged) const {
  if (const auto* plain = std::get_if<DenseWeight>(&weight)) {
    for (const Parameter& p : parameters_) {
      if (p.keep.defined() && p.value.is_same(plain->values)) {
        return to_sparse(settled(plain->values, averaged) * p.keep);
      }
    }
    return DenseWeight{settled(plain->values, averaged)};
  }
  if (const auto* factors = std::get_if<LowRankWeight>(&weight)) return settled(*factors, averaged);
  if (const auto* sum = std::get_if<CorrectedWeight>(&weight)) {
    CorrectedWeight result{sum->base, settled(sum->correction, averaged)};
    if (const auto* base = std::get_if<QuantizedWeight>(&sum->base)) {
      result.base = settled(*base, averaged);
    }
    return result;
  }
  if (const auto* codes = std::get_if<QuantizedWeight>(&weight)) return settled(*codes, averaged);
  return weight;
}

Block Student::block(std::int64_t index, bool averaged) const {
  Block block = blocks_[static_cast<std::size_t>(index)];
  for (at::Tensor& norm : block.norms) norm = settled(norm, averaged);
  for (const Role role : roles_of(block)) {
    block[role].weight = settled(block[role].weight, averaged);
    block[role].bias = settled(block[role].bias, averaged);
  }
  for (const LearntLayer& layer : learnt_[static_cast<std::size_t>(index)]) {
    block[layer.role].weight = layer.codes.settled(parameters_, averaged);
  }
  return block;
}

Weight Student::embedding(bool averaged) const { return settled(embedding_, averaged); }
Weight Student::head_weight(bool averaged) const { return settled(head_, averaged); }
at::Tensor Student::final_norm(bool averaged) const { return settled(final_norm_, averaged); }

}  // namespace attar
