#include "compress/calibrate/stream.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <deque>
#include <span>

#include "compress/core/errors.h"
#include "compress/io/hash.h"

namespace attar {
namespace {

void hash_tensor(io::Sha256& hash, const at::Tensor& tensor) {
  if (!tensor.defined()) {
    hash.update(std::string_view("none"));
    return;
  }
  const at::Tensor values = tensor.contiguous();
  hash.update(std::string_view(toString(values.scalar_type())));
  for (const std::int64_t size : values.sizes()) hash.update(std::to_string(size) + ",");
  hash.update(std::span(static_cast<const std::byte*>(values.const_data_ptr()),
                        static_cast<std::size_t>(values.nbytes())));
}

void hash_weight(io::Sha256& hash, const Weight& weight) {
  struct Hasher {
    io::Sha256& hash;
    void operator()(const DenseWeight& w) const { hash_tensor(hash, w.values); }
    void operator()(const QuantizedWeight& w) const {
      hash.update(std::to_string(w.scheme.bits) + "/" + std::to_string(w.scheme.group_size) + "/" +
                  std::string(to_string(w.scheme.zero_point)));
      hash_tensor(hash, w.codes);
      hash_tensor(hash, w.scale);
      hash_tensor(hash, w.zero);
    }
    void operator()(const SparseWeight& w) const {
      hash_tensor(hash, w.values);
      hash_tensor(hash, w.mask);
    }
    void operator()(const LowRankWeight& w) const {
      hash_tensor(hash, w.b);
      hash_tensor(hash, w.a);
    }
    void operator()(const CorrectedWeight& w) const {
      std::visit(*this, w.base);
      (*this)(w.correction);
    }
  };
  hash.update(kind_of(weight));
  std::visit(Hasher{hash}, weight);
}

void hash_linear(io::Sha256& hash, const Linear& linear) {
  hash_weight(hash, linear.weight);
  hash_tensor(hash, linear.bias);
}

// Everything inside the block that the activations at `site` depend on.
std::string hash_before(Site site, const std::string& context, const Block& block) {
  io::Sha256 hash;
  hash.update(context);
  hash.update(to_string(site));
  hash_tensor(hash, block.attention_norm);
  if (site == Site::kAttentionInput) return hash.hex();
  for (const Role role : {Role::kQuery, Role::kKey, Role::kValue}) hash_linear(hash, block[role]);
  if (site == Site::kOutputInput) return hash.hex();
  hash_linear(hash, block[Role::kOutput]);
  hash_tensor(hash, block.mlp_norm);
  if (site == Site::kMlpInput) return hash.hex();
  for (const Role role : {Role::kGate, Role::kUp}) hash_linear(hash, block[role]);
  return hash.hex();
}

}  // namespace

// Whether two weights are the very same tensors: nothing was changed in between.
bool same_tensors(const Weight& a, const Weight& b) {
  if (a.index() != b.index()) return false;
  if (const auto* dense_a = std::get_if<DenseWeight>(&a)) {
    return dense_a->values.is_same(std::get<DenseWeight>(b).values);
  }
  if (const auto* quantized_a = std::get_if<QuantizedWeight>(&a)) {
    const auto& quantized_b = std::get<QuantizedWeight>(b);
    return quantized_a->codes.is_same(quantized_b.codes) &&
           quantized_a->scale.is_same(quantized_b.scale);
  }
  return false;  // the rarer kinds are simply computed again
}

// Whether both blocks do the same up to the MLP.
bool same_attention(const Block& a, const Block& b) {
  bool same = a.attention_norm.is_same(b.attention_norm);
  for (const Role role : {Role::kQuery, Role::kKey, Role::kValue, Role::kOutput}) {
    same =
        same && same_tensors(a[role].weight, b[role].weight) && a[role].bias.is_same(b[role].bias);
  }
  return same;
}

struct BlockStream::State {
  const ModelConfig& config;
  RopeTable rope;
  StreamOptions options;
  std::string tokens_sha256;
  std::string context;            // hash of model and of every block that went before
  at::Tensor activations;         // [N, T, hidden]: inputs of the first pending block
  at::Tensor scratch;             // [N, T, max(hidden, q_width)]: between two steps of a block
  std::deque<Block> pending;      // final blocks whose outputs nobody has needed yet
  std::optional<Block> attended;  // scratch holds `activations` after the attention of this block

  std::int64_t sequences() const { return activations.size(0); }
  std::int64_t length() const { return activations.size(1); }

  // Batches [first, first + count) of sequences.
  template <class Body>
  void for_batches(const RunContext* context_or_null, const Body& body) {
    for (std::int64_t first = 0; first < sequences(); first += options.batch) {
      if (context_or_null) context_or_null->check_stop();
      body(first, std::min(options.batch, sequences() - first));
    }
  }

  // Runs pending blocks, so that `activations` are the inputs of the next block.
  void catch_up(const RunContext& run) {
    while (!pending.empty()) {
      const BlockRunner runner(config, pending.front(), rope);
      const bool half_done = attended && same_attention(*attended, pending.front());
      // A stop between two batches leaves a stream that can only be thrown away: the run ends with
      // the exception, and a later one recomputes.
      for_batches(&run, [&](std::int64_t first, std::int64_t count) {
        at::Tensor rows = activations.narrow(0, first, count);
        if (half_done) {
          const at::Tensor h = scratch.narrow(0, first, count);
          rows.copy_(runner.add_mlp(h, runner.gated(runner.mlp_input(h))));
        } else {
          rows.copy_(runner.forward(rows));
        }
      });
      attended.reset();
      pending.pop_front();
    }
  }

  at::Tensor scratch_rows(std::int64_t first, std::int64_t count, std::int64_t width) {
    if (!scratch.defined() || scratch.size(2) != width) {
      scratch = at::Tensor();
      scratch = at::empty({sequences(), length(), width}, at::kFloat);
    }
    return scratch.narrow(0, first, count);
  }

  std::optional<linalg::GramStatistics> known(const StatisticsKey& key) const {
    return options.store ? options.store->find(key) : std::nullopt;
  }
};

BlockStream::BlockStream(const Model& model, CalibrationTokens tokens, StreamOptions options)
    : state_(std::make_unique<State>(State{model.config(),
                                           rope_table(model.config(), tokens.ids.size(1)),
                                           std::move(options),
                                           tokens.sha256,
                                           {},
                                           {},
                                           {},
                                           {}})) {
  require(tokens.ids.size(1) <= model.config().max_positions, "calibration", "sequences of ",
          tokens.ids.size(1), " tokens exceed the model's ", model.config().max_positions,
          " positions; lower calibration.length");
  state_->activations = embed(model.embedding(), tokens.ids);
  if (state_->options.store) {
    io::Sha256 hash;
    hash.update(model.source().sha256());
    state_->context = hash.hex();
  }
}

BlockStream::~BlockStream() = default;

std::int64_t BlockStream::sequences() const { return state_->sequences(); }
std::int64_t BlockStream::tokens() const { return state_->sequences() * state_->length(); }

void BlockStream::advance(const Block& block) {
  if (state_->options.store) {
    io::Sha256 hash;
    hash.update(hash_before(Site::kDownInput, state_->context, block));
    hash_linear(hash, block[Role::kDown]);
    state_->context = hash.hex();
  }
  state_->pending.push_back(block);
}

std::array<std::shared_ptr<const linalg::GramStatistics>, kSites.size()> BlockStream::collect(
    const Block& block, const RunContext& context) {
  std::array<std::shared_ptr<const linalg::GramStatistics>, kSites.size()> found;
  sequential(block, context, [&](Site site, const linalg::GramStatistics& statistics) {
    found[index_of(site)] = std::make_shared<const linalg::GramStatistics>(statistics);
  });
  return found;
}

void BlockStream::sequential(
    const Block& block, const RunContext& context,
    const std::function<void(Site, const linalg::GramStatistics&)>& change) {
  State& s = *state_;
  std::optional<BlockRunner> runner;
  // Steps of the block that have been computed into scratch: attention output, then h.
  bool have_mixed = false, have_hidden = false;

  const auto prepare = [&] {
    if (runner) return;
    s.catch_up(context);
    s.attended.reset();
    runner.emplace(s.config, block, s.rope);
  };
  const auto compute_mixed = [&](const std::function<void(const at::Tensor&)>& see) {
    s.for_batches(&context, [&](std::int64_t first, std::int64_t count) {
      const at::Tensor normed = runner->attention_input(s.activations.narrow(0, first, count));
      const at::Tensor mixed = runner->attention(normed, nullptr);
      s.scratch_rows(first, count, s.config.q_width()).copy_(mixed);
      see(mixed);
    });
    have_mixed = true;
  };
  const auto compute_hidden = [&](const std::function<void(const at::Tensor&)>& see) {
    if (!have_mixed) compute_mixed([](const at::Tensor&) {});
    at::Tensor hidden =
        s.config.q_width() == s.config.hidden ? s.scratch : at::empty_like(s.activations);
    s.for_batches(&context, [&](std::int64_t first, std::int64_t count) {
      const at::Tensor mixed = s.scratch.narrow(0, first, count);
      const at::Tensor h = runner->add_attention(s.activations.narrow(0, first, count), mixed);
      see(h);
      hidden.narrow(0, first, count).copy_(h);
    });
    s.scratch = hidden;
    have_hidden = true;
  };

  for (const Site site : kSites) {
    StatisticsKey key;
    if (s.options.store) key = {hash_before(site, s.context, block), s.tokens_sha256};
    std::optional<linalg::GramStatistics> statistics = s.known(key);
    if (!statistics) {
      prepare();
      const Role reader = site == Site::kAttentionInput ? Role::kQuery
                          : site == Site::kOutputInput  ? Role::kOutput
                          : site == Site::kMlpInput     ? Role::kGate
                                                        : Role::kDown;
      linalg::GramAccumulator gram(shape_of(s.config, reader).in);
      const auto add = [&](const at::Tensor& inputs) { gram.add(inputs.flatten(0, 1)); };
      switch (site) {
        case Site::kAttentionInput:
          s.for_batches(&context, [&](std::int64_t first, std::int64_t count) {
            add(runner->attention_input(s.activations.narrow(0, first, count)));
          });
          break;
        case Site::kOutputInput:
          compute_mixed(add);
          break;
        case Site::kMlpInput:
          compute_hidden([&](const at::Tensor& h) { add(runner->mlp_input(h)); });
          break;
        case Site::kDownInput:
          if (!have_hidden) compute_hidden([](const at::Tensor&) {});
          s.for_batches(&context, [&](std::int64_t first, std::int64_t count) {
            add(runner->gated(runner->mlp_input(s.scratch.narrow(0, first, count))));
          });
          break;
      }
      statistics = gram.finish();
      if (s.options.store) s.options.store->put(key, *statistics);
    }
    change(site, *statistics);
    statistics.reset();
    if (site == Site::kDownInput && have_hidden) s.attended = block;
    if (runner) {
      for (const Role role : kRoles) {
        if (site_of(role) == site) runner->refresh(block, role);
      }
    }
  }
}

}  // namespace attar
