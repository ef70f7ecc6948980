#include "compress/calibrate/stream.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "compress/calibrate/block_identity.h"
#include "compress/calibrate/block_lane.h"
#include "compress/core/errors.h"
#include "compress/io/hash.h"

namespace attar {

struct BlockStream::State {
  StreamOptions options;
  std::string tokens_sha256;
  std::string context;  // hash of model and of every block that went before
  at::Tensor weights;   // CalibrationTokens::weights
  std::int64_t block;   // whose inputs these are
  BlockLane changed;
  std::optional<BlockLane> dense;  // the unchanged model's activations

  std::optional<linalg::GramStatistics> known(const StatisticsKey& key) const {
    return options.store ? options.store->find(key) : std::nullopt;
  }

  // What each row of `batch` sequences at `site` is multiplied with, [batch * T, 1]; undefined: 1.
  at::Tensor roots(Site site, std::int64_t batch) const {
    if (!weights.defined()) return {};
    return weights[block][static_cast<std::int64_t>(index_of(site))]
        .sqrt()
        .repeat({batch})
        .unsqueeze(1);
  }
};

namespace {

std::string hash_of(const Model& model) {
  io::Sha256 hash;
  hash.update(model.source().sha256());
  if (model.outer_changed()) hash.update(hash_of(model.embedding()));
  return hash.hex();
}

constexpr Role first_reader(Site site) {
  switch (site) {
    case Site::kAttentionInput:
      return Role::kQuery;
    case Site::kOutputInput:
      return Role::kOutput;
    case Site::kMlpInput:
      return Role::kGate;
    case Site::kDownInput:
      break;
  }
  return Role::kDown;
}

// Statistics of weighted tokens are others.
std::string identity_of(const CalibrationTokens& tokens) {
  if (!tokens.weights.defined()) return tokens.sha256;
  io::Sha256 hash;
  hash.update(tokens.sha256);
  hash.update(std::span(static_cast<const std::byte*>(tokens.weights.const_data_ptr()),
                        tokens.weights.nbytes()));
  return hash.hex();
}

at::Tensor weighted(const at::Tensor& rows, const at::Tensor& roots) {
  return roots.defined() ? rows * roots : rows;
}

std::int64_t columns_at(const Block& block, Site site) {
  return shape_of(block[first_reader(site)].weight).in;
}

}  // namespace

BlockStream::BlockStream(const Model& model, CalibrationTokens tokens, StreamOptions options) {
  const ModelConfig& config = model.config();
  require(tokens.ids.size(1) <= config.max_positions, "calibration", "sequences of ",
          tokens.ids.size(1), " tokens exceed the model's ", config.max_positions,
          " positions; lower calibration.length");
  const at::Tensor weights = tokens.weights.defined() ? tokens.weights.contiguous() : at::Tensor();
  require<std::logic_error>(
      !weights.defined() ||
          weights.sizes() ==
              at::IntArrayRef(
                  {config.layers, static_cast<std::int64_t>(kSites.size()), tokens.ids.size(1)}),
      "calibration", "token weights of another model or length");
  if (options.batch == 0) options.batch = tokens.batch;
  const RopeTable rope = rope_table(config, tokens.ids.size(1));
  const at::Tensor embedded = embed(model.embedding(), tokens.ids);
  std::optional<BlockLane> dense;
  if (options.dense_stream) {
    const Model* other = options.dense_model;
    dense.emplace(other ? other->config() : config, rope,
                  other ? embed(other->embedding(), tokens.ids) : embedded.clone(), options.batch);
  }
  model.done_with_outer();
  std::string context = options.store ? hash_of(model) : std::string();
  BlockLane changed(config, rope, embedded, options.batch);
  state_ =
      std::make_unique<State>(State{std::move(options), identity_of(tokens), std::move(context),
                                    weights, 0, std::move(changed), std::move(dense)});
}

BlockStream::~BlockStream() = default;

std::int64_t BlockStream::sequences() const { return state_->changed.sequences(); }
std::int64_t BlockStream::tokens() const { return sequences() * state_->changed.length(); }
bool BlockStream::has_dense() const { return state_->dense.has_value(); }

BlockEnds BlockStream::ends(const Block& block, const Block& original, double towards_dense,
                            const RunContext& context) {
  State& s = *state_;
  require<std::logic_error>(s.dense.has_value(), "calibration",
                            "no dense stream: ask for it by Needs::dense_stream");
  const auto outputs = [&](BlockLane& lane) {
    if (lane.entered()) lane.leave();  // a visit that ended in an exception
    lane.enter(original, context);
    at::Tensor found = at::empty({lane.sequences(), lane.length(), lane.hidden()}, at::kFloat);
    lane.for_batches(context, [&](std::int64_t first, std::int64_t count) {
      found.narrow(0, first, count).copy_(lane.outputs(first, count));
    });
    lane.rest();
    return found;
  };
  BlockEnds ends;
  ends.targets = outputs(*s.dense);
  if (towards_dense < 1) {
    ends.targets.mul_(towards_dense).add_(outputs(s.changed), 1 - towards_dense);
  } else {
    s.changed.enter(block, context);
    s.changed.rest();
  }
  ends.inputs = s.changed.activations(0, s.changed.sequences());
  if (s.weights.defined()) {
    ends.weights = s.weights[s.block][static_cast<std::int64_t>(index_of(Site::kDownInput))];
  }
  return ends;
}

void BlockStream::advance(const Block& block) {
  require<std::logic_error>(!state_->dense, "calibration",
                            "a stream with a dense one beside needs the original block too");
  if (state_->options.store) state_->context = hash_whole(state_->context, block);
  state_->changed.advance(block);
  ++state_->block;
}

void BlockStream::advance(const Block& block, const Block& original) {
  if (state_->options.store) state_->context = hash_whole(state_->context, block);
  state_->changed.advance(block);
  ++state_->block;
  if (state_->dense) state_->dense->advance(original);
}

std::array<std::shared_ptr<const linalg::GramStatistics>, kSites.size()> BlockStream::collect(
    const Block& block, const RunContext& context) {
  std::array<std::shared_ptr<const linalg::GramStatistics>, kSites.size()> found;
  sequential(block, context, [&](Site site, const linalg::GramStatistics& statistics) {
    found[index_of(site)] = std::make_shared<const linalg::GramStatistics>(statistics);
  });
  return found;
}

namespace {

// Adds rows that arrive in pieces to a sample: every `step`th token, and the largest of all.
class Sampler {
 public:
  Sampler(std::int64_t columns, std::int64_t step)
      : step_(step), largest_(at::zeros({columns}, at::kFloat)) {}

  void add(const at::Tensor& batch, const at::Tensor& roots) {
    const at::Tensor finite = at::isfinite(batch).all(1);
    at::Tensor rows = batch;
    if (const std::int64_t lost = batch.size(0) - finite.sum().item<std::int64_t>(); lost > 0) {
      dropped_ += lost;
      rows = batch.masked_fill(finite.logical_not().unsqueeze(1), 0);
    }
    largest_ = at::maximum(largest_, rows.abs().amax(0));
    const std::int64_t first = (step_ - seen_ % step_) % step_;
    for (std::int64_t row = first; row < rows.size(0); row += step_) {
      if (!finite[row].item<bool>()) continue;
      kept_.push_back(roots.defined() ? rows[row] * roots[row] : rows[row].clone());
    }
    seen_ += rows.size(0);
  }

  InputSample finish() const {
    return {kept_.empty() ? at::zeros({0, largest_.size(0)}, at::kFloat) : at::stack(kept_),
            largest_, dropped_};
  }

 private:
  std::int64_t step_;
  std::int64_t seen_ = 0;
  std::int64_t dropped_ = 0;
  at::Tensor largest_;
  std::vector<at::Tensor> kept_;
};

}  // namespace

std::array<InputSample, kSites.size()> BlockStream::sample(const Block& block,
                                                           const RunContext& context,
                                                           std::int64_t count) {
  std::array<InputSample, kSites.size()> found;
  BlockLane& lane = state_->changed;
  if (lane.entered()) lane.leave();  // a visit that ended in an exception
  lane.enter(block, context);
  // Odd, so that sequences of 2^n tokens are not met at the same few places each.
  const std::int64_t step = std::max<std::int64_t>(1, tokens() / count - 1) | 1;
  for (const Site site : sites_of(block)) {
    lane.reach(site, context);
    Sampler sampler(columns_at(block, site), step);
    lane.for_batches(context, [&](std::int64_t first, std::int64_t batch) {
      sampler.add(lane.inputs(site, first, batch).flatten(0, 1), state_->roots(site, batch));
    });
    lane.visited(site);
    found[index_of(site)] = sampler.finish();
  }
  lane.leave();
  return found;
}

void BlockStream::sequential(
    const Block& block, const RunContext& context,
    const std::function<void(Site, const linalg::GramStatistics&)>& change) {
  sequential(block, nullptr, context,
             [&](Site site, const linalg::GramStatistics& statistics, linalg::CrossGram*) {
               change(site, statistics);
             });
}

void BlockStream::sequential(const Block& block, const Block& original, const RunContext& context,
                             const DenseChange& change) {
  sequential(block, &original, context,
             [&](Site site, const linalg::GramStatistics& statistics, linalg::CrossGram* cross) {
               change(site, statistics, *cross);
             });
}

void BlockStream::sequential(const Block& block, const Block* original, const RunContext& context,
                             const MaybeDenseChange& change) {
  require<std::logic_error>(original == nullptr || state_->dense.has_value(), "calibration",
                            "no dense stream: ask for it by Needs::dense_stream");
  State& s = *state_;
  if (s.changed.entered()) s.changed.leave();  // a visit that ended in an exception
  const auto enter = [&] {
    if (s.changed.entered()) return;
    s.changed.enter(block, context);
    if (original) s.dense->enter(*original, context);
  };
  for (const Site site : sites_of(block)) {
    StatisticsKey key;
    if (s.options.store) key = {hash_before(site, s.context, block), s.tokens_sha256};
    std::optional<linalg::GramStatistics> statistics = s.known(key);
    std::optional<linalg::CrossAccumulator> cross;
    if (original) cross.emplace(columns_at(*original, site), columns_at(block, site));
    const bool adds = site == Site::kOutputInput || site == Site::kDownInput;
    std::optional<linalg::CrossAccumulator> residual;
    if (cross && adds && s.options.residual && s.dense->hidden() == s.changed.hidden()) {
      residual.emplace(s.changed.hidden(), columns_at(block, site));
    }
    if (!statistics || cross) {
      enter();
      s.changed.reach(site, context);
      if (cross) s.dense->reach(site, context);
      std::optional<linalg::GramAccumulator> gram;
      if (!statistics) gram.emplace(columns_at(block, site));
      s.changed.for_batches(context, [&](std::int64_t first, std::int64_t count) {
        const at::Tensor roots = s.roots(site, count);
        const auto rows_of = [&](BlockLane& lane) {
          return weighted(lane.inputs(site, first, count).flatten(0, 1), roots);
        };
        const at::Tensor rows = rows_of(s.changed);
        if (gram) gram->add(rows);
        if (cross) cross->add(rows_of(*s.dense), rows);
        if (residual) {
          const at::Tensor lost =
              s.dense->added_to(site, first, count) - s.changed.added_to(site, first, count);
          residual->add(weighted(lost.flatten(0, 1), roots), rows);
        }
      });
      s.changed.visited(site);
      if (cross) s.dense->visited(site);
      if (gram) {
        statistics = gram->finish();
        if (s.options.store) s.options.store->put(key, *statistics);
      }
    }
    std::optional<linalg::CrossGram> crossed;
    if (cross) crossed = cross->finish();
    if (residual) crossed->residual = residual->finish().gram;
    cross.reset();
    residual.reset();
    if (site == Site::kDownInput) {
      // The last statistics are mostly the widest: weights and rows of the forward pass, which
      // nobody needs any more, do not stay beside what the change works with.
      s.changed.rest();
      if (original) s.dense->rest();
    }
    change(site, *statistics, crossed ? &*crossed : nullptr);
    statistics.reset();
    if (s.changed.entered()) s.changed.refresh(block);
  }
  if (s.changed.entered()) s.changed.leave();
  if (original) s.dense->leave();
}

}  // namespace attar
