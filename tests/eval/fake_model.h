// A model and a tokenizer whose every number can be worked out by hand or by a slow reference.
#pragma once

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "compress/runtime/language_model.h"

namespace attar::eval::testing {

// One token a byte, id = byte value; 256 is BOS, 257 is EOS with the text "<eos>".
class ByteTokenizer : public Tokenizer {
 public:
  static constexpr TokenId kBos = 256;
  static constexpr TokenId kEos = 257;

  explicit ByteTokenizer(bool adds_bos = false) : adds_bos_(adds_bos) {}

  std::vector<TokenId> encode(std::string_view text, bool add_special) const override {
    std::vector<TokenId> ids;
    if (add_special && adds_bos_) ids.push_back(kBos);
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  }
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override {
    std::string text;
    for (const TokenId id : ids) {
      if (id < 256) text.push_back(static_cast<char>(id));
      if (id == kEos && !skip_special) text += "<eos>";
    }
    return text;
  }
  std::int64_t vocabulary_size() const override { return 258; }
  std::optional<TokenId> bos() const override { return kBos; }
  std::optional<TokenId> eos() const override { return kEos; }
  std::optional<TokenId> unknown() const override { return std::nullopt; }
  std::optional<TokenId> padding() const override { return std::nullopt; }
  bool adds_bos() const override { return adds_bos_; }
  std::optional<TokenId> id_of(std::string_view) const override { return std::nullopt; }
  std::string_view token(TokenId) const override { return ""; }
  bool is_special(TokenId id) const override { return id >= 256; }
  std::optional<std::string> chat_template() const override { return std::nullopt; }

 private:
  bool adds_bos_;
};

// Log-probabilities come from a function of (everything before, the token); greedy text from a
// script that is the same for every prompt.
class FakeModel : public LanguageModel {
 public:
  using LogProbability = std::function<double(std::span<const TokenId>, TokenId)>;

  explicit FakeModel(LogProbability log_probability, std::int64_t max_length = 4096)
      : log_probability_(std::move(log_probability)), max_length_(max_length) {}

  const Tokenizer& tokenizer() const override { return tokenizer_; }
  std::int64_t max_length() const override { return max_length_; }

  std::vector<ContinuationScore> score(
      std::span<const TokenId> prefix,
      std::span<const std::vector<TokenId>> continuations) override {
    ++calls;
    prefixes.emplace_back(prefix.begin(), prefix.end());
    std::vector<ContinuationScore> scores;
    for (const std::vector<TokenId>& continuation : continuations) {
      std::vector<TokenId> before(prefix.begin(), prefix.end());
      ContinuationScore score;
      for (const TokenId token : continuation) {
        const double value = log_probability_(before, token);
        score.log_likelihood += value;
        score.is_greedy = score.is_greedy && value > -1;
        score.token_log_probabilities.push_back(static_cast<float>(value));
        before.push_back(token);
      }
      longest_input = std::max(longest_input, static_cast<std::int64_t>(before.size()) - 1);
      scores.push_back(std::move(score));
    }
    return scores;
  }

  Generation generate_greedy(std::span<const TokenId> prompt, std::int64_t max_new_tokens,
                             std::span<const TokenId> stop_ids,
                             const std::function<bool(std::span<const TokenId>)>& stop) override {
    prefixes.emplace_back(prompt.begin(), prompt.end());
    Generation generation;
    for (const TokenId id : script) {
      if (static_cast<std::int64_t>(generation.ids.size()) == max_new_tokens) break;
      generation.ids.push_back(id);
      if (std::find(stop_ids.begin(), stop_ids.end(), id) != stop_ids.end()) break;
      if (stop(generation.ids)) break;
    }
    return generation;
  }

  std::vector<TokenId> script;  // what generate_greedy says
  int calls = 0;
  std::int64_t longest_input = 0;
  std::vector<std::vector<TokenId>> prefixes;  // of every call

 private:
  ByteTokenizer tokenizer_;
  LogProbability log_probability_;
  std::int64_t max_length_;
};

// Any finite number below 0 that depends on all that came before.
inline double scrambled(std::span<const TokenId> before, TokenId token) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const TokenId id : before) hash = (hash ^ static_cast<std::uint64_t>(id)) * 1099511628211ULL;
  hash = (hash ^ static_cast<std::uint64_t>(token)) * 1099511628211ULL;
  return -static_cast<double>(hash >> 40) / static_cast<double>(1 << 22);
}

}  // namespace attar::eval::testing
