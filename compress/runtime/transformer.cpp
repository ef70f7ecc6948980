#include "compress/runtime/transformer.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "compress/core/errors.h"

namespace attar {
namespace {

// Tokens of one forward pass: bounds the working memory of a long prompt.
constexpr std::size_t kReadTokens = 2048;

}  // namespace

LogitsHead::LogitsHead(const Model& model, Arithmetic arithmetic)
    : norm_(model.final_norm().to(at::kFloat).contiguous()),
      head_(model.head(), arithmetic),
      eps_(model.config().norm_eps) {}

at::Tensor LogitsHead::logits(const at::Tensor& hidden) const {
  return head_.multiply_into(at::empty({hidden.size(0), vocabulary()}, at::kFloat),
                             rms_norm(hidden, norm_, eps_));
}

std::vector<kernels::LogitStats> LogitsHead::statistics(
    const at::Tensor& hidden, std::span<const std::int64_t> targets) const {
  const std::int64_t rows = hidden.size(0);
  std::vector<kernels::LogitStats> found(static_cast<std::size_t>(rows));
  for (std::int64_t first = 0; first < rows; first += kChunkRows) {
    const std::int64_t count = std::min(kChunkRows, rows - first);
    if (!chunk_.defined() || chunk_.size(0) < count) {
      chunk_ = at::Tensor();
      chunk_ = at::empty({count, vocabulary()}, at::kFloat);
    }
    at::Tensor chunk = chunk_.narrow(0, 0, count);
    head_.multiply_into(chunk, rms_norm(hidden.narrow(0, first, count), norm_, eps_));
    kernels::log_softmax_stats({chunk.const_data_ptr<float>(), count, vocabulary(), vocabulary(),
                                targets.empty() ? nullptr : targets.data() + first,
                                found.data() + first});
  }
  for (std::size_t row = 0; row < found.size(); ++row) {
    require<NumericRefusal>(found[row].non_finite == 0, "logits", found[row].non_finite, " of ",
                            vocabulary(), " logits at position ", row,
                            " are NaN or infinite; the weights are damaged");
  }
  return found;
}

Transformer::Transformer(const Model& model, Arithmetic arithmetic, CacheType cache)
    : config_(model.config()), embedding_(model.embedding()), head_(model, arithmetic) {
  const RopeTable rope = rope_table(config_, config_.max_positions);
  const auto memory = std::make_shared<ForwardMemory>();
  for (std::int64_t index = 0; index < config_.layers; ++index) {
    const Block block = model.block(index);
    check_finite(block, index);
    blocks_.emplace_back(config_, block, rope, memory, arithmetic, cache);
    model.done_with_block(index);
  }
}

Transformer::State Transformer::start() const {
  State state;
  state.caches.resize(blocks_.size());
  return state;
}

void Transformer::reserve(State& state, std::size_t tokens) const {
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    blocks_[i].reserve(state.caches[i], static_cast<std::int64_t>(tokens));
  }
}

std::int64_t Transformer::cache_bytes(const State& state) {
  std::int64_t sum = 0;
  for (const KeyValues& cache : state.caches) {
    if (cache.keys.defined())
      sum += static_cast<std::int64_t>(cache.keys.nbytes() + cache.values.nbytes());
  }
  return sum;
}

std::int64_t Transformer::weight_bytes() const {
  std::int64_t sum = head_.bytes();
  for (const BlockRunner& block : blocks_) sum += block.prepared_bytes();
  return sum;
}

void Transformer::rewind(State& state, std::size_t length) {
  state.tokens.resize(length);
  for (KeyValues& cache : state.caches) cache.length = static_cast<std::int64_t>(length);
}

at::Tensor Transformer::embed_tokens(std::span<const TokenId> tokens) const {
  at::Tensor ids = at::empty({1, static_cast<std::int64_t>(tokens.size())}, at::kLong);
  auto* out = ids.mutable_data_ptr<std::int64_t>();
  for (const TokenId token : tokens) {
    require(token >= 0 && token < config_.vocabulary, "tokens", "id ", token,
            " is outside the vocabulary of ", config_.vocabulary,
            "; the tokenizer does not belong to this model");
    *out++ = token;
  }
  return embed(embedding_, ids);
}

at::Tensor Transformer::extend(State& state, std::span<const TokenId> tokens) const {
  reserve(state, state.tokens.size() + tokens.size());
  std::vector<at::Tensor> parts;
  for (std::size_t first = 0; first < tokens.size(); first += kReadTokens) {
    const auto piece = tokens.subspan(first, std::min(kReadTokens, tokens.size() - first));
    at::Tensor x = embed_tokens(piece);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      x = blocks_[i].forward(x, &state.caches[i]);
    }
    state.tokens.insert(state.tokens.end(), piece.begin(), piece.end());
    parts.push_back(x.select(0, 0));
  }
  return parts.size() == 1 ? parts.front() : at::cat(parts, 0);
}

at::Tensor Transformer::branch(const State& state,
                               std::span<const std::vector<TokenId>> branches) const {
  std::vector<TokenId> tokens;
  std::vector<std::int64_t> lengths;
  for (const std::vector<TokenId>& one : branches) {
    tokens.insert(tokens.end(), one.begin(), one.end());
    lengths.push_back(static_cast<std::int64_t>(one.size()));
  }
  at::Tensor x = embed_tokens(tokens);
  for (std::size_t i = 0; i < blocks_.size(); ++i) {
    x = blocks_[i].forward_branches(x, state.caches[i], lengths);
  }
  return x.select(0, 0);
}

namespace {

class TransformerLanguageModel final : public LanguageModel {
 public:
  TransformerLanguageModel(const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
                           Arithmetic arithmetic, CacheType cache)
      : transformer_(model, arithmetic, cache),
        tokenizer_(std::move(tokenizer)),
        state_(transformer_.start()) {}

  const Tokenizer& tokenizer() const override { return *tokenizer_; }
  std::int64_t max_length() const override { return transformer_.config().max_positions; }

  std::vector<ContinuationScore> score(
      std::span<const TokenId> prefix,
      std::span<const std::vector<TokenId>> continuations) override {
    std::size_t longest = 0;
    for (const std::vector<TokenId>& one : continuations) {
      require<UsageError>(!one.empty(), "score", "a continuation must hold a token");
      longest = std::max(longest, one.size());
    }
    check_length(prefix.size() + longest - 1);
    const at::Tensor last = read_prompt(prefix);
    // A long continuation is read on the spot; several short ones side by side.
    const at::Tensor inner = continuations.size() == 1 ? read_single(prefix, continuations.front())
                                                       : read_branches(continuations);

    // One row of hidden states for every token to predict: the last of the prefix, then the inner
    // tokens of the continuation.
    std::vector<at::Tensor> rows;
    std::vector<std::int64_t> targets;
    std::int64_t at_row = 0;
    for (const std::vector<TokenId>& one : continuations) {
      const auto inner_count = static_cast<std::int64_t>(one.size()) - 1;
      rows.push_back(last);
      if (inner_count > 0) rows.push_back(inner.narrow(0, at_row, inner_count));
      at_row += inner_count;
      targets.insert(targets.end(), one.begin(), one.end());
    }
    const auto stats = transformer_.head().statistics(at::cat(rows, 0), targets);

    std::vector<ContinuationScore> scores;
    std::size_t row = 0;
    for (const std::vector<TokenId>& one : continuations) {
      ContinuationScore& score = scores.emplace_back();
      for (const TokenId token : one) {
        const kernels::LogitStats& s = stats[row++];
        score.token_log_probabilities.push_back(static_cast<float>(s.target_log_probability));
        score.log_likelihood += s.target_log_probability;
        score.is_greedy = score.is_greedy && s.argmax == token;
      }
    }
    return scores;
  }

  Generation generate_greedy(std::span<const TokenId> prompt, std::int64_t max_new_tokens,
                             std::span<const TokenId> stop_ids,
                             const std::function<bool(std::span<const TokenId>)>& stop) override {
    check_length(prompt.size() +
                 static_cast<std::size_t>(std::max<std::int64_t>(max_new_tokens, 0)));
    Generation generation;
    if (max_new_tokens <= 0) return generation;
    at::Tensor last = read_prompt(prompt);
    while (true) {
      const auto stats = transformer_.head().statistics(last, {});
      generation.ids.push_back(static_cast<TokenId>(stats.front().argmax));
      const bool ended =
          std::find(stop_ids.begin(), stop_ids.end(), generation.ids.back()) != stop_ids.end() ||
          static_cast<std::int64_t>(generation.ids.size()) >= max_new_tokens ||
          (stop && stop(generation.ids));
      if (ended) return generation;
      last = transformer_.extend(state_, std::span(&generation.ids.back(), 1));
    }
  }

 private:
  void check_length(std::size_t tokens) const {
    require<UsageError>(static_cast<std::int64_t>(tokens) <= max_length(), "model", tokens,
                        " tokens exceed the model's ", max_length(), " positions");
  }

  // Reads what the state does not hold yet, at least the last token; its hidden state [1, hidden].
  at::Tensor read_prompt(std::span<const TokenId> prompt) {
    require<UsageError>(!prompt.empty(), "model", "a prompt must hold a token");
    const std::size_t limit = std::min(prompt.size() - 1, state_.tokens.size());
    const auto [parted, unused] =
        std::mismatch(prompt.begin(), prompt.begin() + limit, state_.tokens.begin());
    const auto shared = static_cast<std::size_t>(parted - prompt.begin());
    Transformer::rewind(state_, shared);
    const at::Tensor hidden = transformer_.extend(state_, prompt.subspan(shared));
    return hidden.narrow(0, hidden.size(0) - 1, 1);
  }

  at::Tensor read_single(std::span<const TokenId> prefix, const std::vector<TokenId>& one) {
    if (one.size() == 1) return {};
    const at::Tensor hidden = transformer_.extend(state_, std::span(one).first(one.size() - 1));
    Transformer::rewind(state_, prefix.size());
    return hidden;
  }

  // Hidden states of all tokens of all continuations but the last of each.
  at::Tensor read_branches(std::span<const std::vector<TokenId>> continuations) {
    std::vector<std::vector<TokenId>> branches;
    for (const std::vector<TokenId>& one : continuations) {
      if (one.size() > 1) branches.emplace_back(one.begin(), one.end() - 1);
    }
    return branches.empty() ? at::Tensor() : transformer_.branch(state_, branches);
  }

  Transformer transformer_;
  std::shared_ptr<const Tokenizer> tokenizer_;
  Transformer::State state_;
};

}  // namespace

std::unique_ptr<LanguageModel> make_language_model(const Model& model,
                                                   std::shared_ptr<const Tokenizer> tokenizer,
                                                   CacheType cache) {
  return std::make_unique<TransformerLanguageModel>(model, std::move(tokenizer), Arithmetic::kExact,
                                                    cache);
}

std::unique_ptr<LanguageModel> make_quantized_language_model(
    const Model& model, std::shared_ptr<const Tokenizer> tokenizer, CacheType cache) {
  return std::make_unique<TransformerLanguageModel>(model, std::move(tokenizer),
                                                    Arithmetic::kQuantized, cache);
}

MakeLanguageModel language_model_on(std::string_view runtime, std::string_view where) {
  require<UsageError>(runtime == "dense" || runtime == "quantized", where,
                      "must be dense or quantized, got '", runtime, "'");
  return runtime == "dense" ? &make_language_model : &make_quantized_language_model;
}

}  // namespace attar
