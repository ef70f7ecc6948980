#include "compress/core/model.h"

#include <algorithm>

#include "compress/core/errors.h"

namespace attar {

std::optional<Block> MemoryModelStore::read(std::int64_t index) const {
  const auto found = blocks_.find(index);
  return found == blocks_.end() ? std::nullopt : std::optional(found->second);
}

Model::Model(std::shared_ptr<const ModelSource> source, std::shared_ptr<ModelStore> overlay)
    : source_(std::move(source)), overlay_(std::move(overlay)), config_(source_->config()) {
  check(config_, source_->path());
}

Model Model::successor(std::shared_ptr<ModelStore> overlay, std::vector<std::int64_t> kept,
                       std::vector<std::int64_t> tokens) const {
  Model next = *this;
  next.base_ = std::make_shared<const Model>(*this);
  next.overlay_ = std::move(overlay);
  next.kept_.clear();
  if (!kept.empty()) next.keep_blocks(std::move(kept));
  if (!tokens.empty()) next.take_tokens(std::move(tokens));
  if (const auto outer = next.overlay_->read_outer()) next.take_shape(*outer);
  for (std::int64_t index = 0; index < next.config_.layers; ++index) {
    if (const auto block = next.overlay_->read(index)) next.take_widths(index, *block);
  }
  return next;
}

std::int64_t Model::below(std::int64_t index) const {
  require(index >= 0 && index < config_.layers, source_->path(), "block must be in [0, ",
          config_.layers, "), got ", index);
  return kept_.empty() ? index : kept_[static_cast<std::size_t>(index)];
}

Block Model::block(std::int64_t index) const {
  const std::int64_t lower = below(index);
  if (std::optional<Block> changed = overlay_->read(index)) return *std::move(changed);
  return base_ ? base_->block(lower) : source_->read_block(lower);
}

Weight Model::embedding() const {
  if (const auto outer = overlay_->read_outer()) return outer->embedding;
  return base_ ? base_->embedding() : source_->read_embedding();
}

at::Tensor Model::final_norm() const {
  if (const auto outer = overlay_->read_outer()) return outer->final_norm;
  return base_ ? base_->final_norm() : source_->read_final_norm();
}

Weight Model::head() const {
  if (const auto outer = overlay_->read_outer()) {
    return outer->head.value_or(outer->embedding);
  }
  return base_ ? base_->head() : source_->read_head();
}

void Model::put_block(std::int64_t index, const Block& block) {
  below(index);  // throws for an index out of range
  check(block, config_, "model.layers." + std::to_string(index));
  overlay_->write(index, block);
  take_widths(index, block);
}

void Model::take_widths(std::int64_t index, const Block& block) {
  const BlockWidths widths = widths_of(block, config_.head_dim);
  if (widths == config_.widths_of(index)) return;
  std::vector<BlockWidths> all;
  for (std::int64_t i = 0; i < config_.layers; ++i) all.push_back(config_.widths_of(i));
  all[static_cast<std::size_t>(index)] = widths;
  config_.set_widths(std::move(all));
}

void Model::put_outer(const OuterWeights& outer) {
  const auto shape = shape_of(outer.embedding);
  const std::string where = source_->path();
  require(outer.final_norm.dim() == 1 && outer.final_norm.size(0) == shape.in, where,
          "the final norm must hold ", shape.in, " values");
  require(!outer.head || shape_of(*outer.head) == shape, where,
          "head and embedding must have one shape");
  overlay_->write_outer(outer);
  take_shape(outer);
}

void Model::take_shape(const OuterWeights& outer) {
  const auto [vocabulary, hidden] = shape_of(outer.embedding);
  config_.vocabulary = vocabulary;
  config_.hidden = hidden;
  config_.tied_head = !outer.head;
}

void Model::keep_blocks(std::vector<std::int64_t> blocks) {
  require(!blocks.empty(), source_->path(), "a model must keep at least one block");
  std::vector<BlockWidths> widths;
  for (std::int64_t& block : blocks) {
    widths.push_back(config_.widths_of(block));
    block = below(block);
  }
  kept_ = std::move(blocks);
  config_.layers = static_cast<std::int64_t>(kept_.size());
  config_.set_widths(std::move(widths));
}

void Model::keep_tokens(const std::vector<std::int64_t>& tokens) {
  require(!tokens.empty(), source_->path(), "a model must keep at least one token");
  std::vector<std::int64_t> origin;
  origin.reserve(tokens.size());
  for (const std::int64_t token : tokens) {
    require(token >= 0 && token < config_.vocabulary, source_->path(), "token must be in [0, ",
            config_.vocabulary, "), got ", token);
    origin.push_back(tokens_.empty() ? token : tokens_[static_cast<std::size_t>(token)]);
  }
  take_tokens(std::move(origin));
}

void Model::take_tokens(std::vector<std::int64_t> tokens) {
  tokens_ = std::move(tokens);
  const auto place = [&](std::optional<std::int64_t> id) -> std::optional<std::int64_t> {
    const auto found = id ? std::find(tokens_.begin(), tokens_.end(), *id) : tokens_.end();
    return found == tokens_.end() ? std::nullopt : std::optional(found - tokens_.begin());
  };
  config_.bos = place(source_->config().bos);
  config_.eos = place(source_->config().eos);
}

bool Model::changed(std::int64_t index) const {
  const std::int64_t lower = below(index);
  return overlay_->read(index).has_value() || (base_ && base_->changed(lower));
}

bool Model::outer_changed() const {
  return overlay_->read_outer().has_value() || (base_ && base_->outer_changed());
}

std::int64_t Model::source_block(std::int64_t index) const {
  const std::int64_t lower = below(index);
  return base_ ? base_->source_block(lower) : lower;
}

void Model::done_with_block(std::int64_t index) const {
  source_->done_with_block(source_block(index));
}

}  // namespace attar
