#include "compress/tokenize/pipeline.h"

#include <unordered_map>
#include <unordered_set>

#include "compress/core/errors.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

// Ids of the words seen in one call, so that frequent words are merged once. Bounded.
class WordCache {
 public:
  explicit WordCache(const Bpe& model, MergeParts* parts = nullptr)
      : model_(model), parts_(parts) {}

  void encode(const std::string& word, std::vector<TokenId>& ids) {
    if (word.size() > kMaxWordBytes) return model_.encode(word, ids, parts_);
    auto found = known_.find(word);
    if (found == known_.end()) {
      if (known_.size() >= kMaxWords) known_.clear();
      std::vector<TokenId> fresh;
      model_.encode(word, fresh, parts_);
      found = known_.emplace(word, std::move(fresh)).first;
    }
    ids.insert(ids.end(), found->second.begin(), found->second.end());
  }

 private:
  static constexpr std::size_t kMaxWords = 1 << 15;
  static constexpr std::size_t kMaxWordBytes = 64;
  const Bpe& model_;
  MergeParts* parts_;
  std::unordered_map<std::string, std::vector<TokenId>> known_;
};

class Pipeline : public Tokenizer {
 public:
  explicit Pipeline(PipelineParts parts) : parts_(std::move(parts)) {
    for (const auto* ids : {&parts_.surrounding.before, &parts_.surrounding.after}) {
      kept_always_.insert(ids->begin(), ids->end());
    }
    const SpecialIds& special = parts_.special;
    for (const auto& id : {special.bos, special.eos, special.unknown, special.padding}) {
      if (id) kept_always_.insert(*id);
    }
    for (const AddedToken& token : parts_.added) {
      kept_always_.insert(token.id);
      if (token.special) special_.insert(token.id);
      if (!token.normalized) {
        raw_.add(token, token.content);
        continue;
      }
      Piece piece{token.content};
      if (parts_.normalizer) parts_.normalizer(piece);
      normalized_.add(token, piece.text);
      if (piece.text == token.content) continue;
      // `tokenizers` gives the normalized form back, and does not know it as special then.
      parts_.spelling[token.id] = piece.text;
      never_skipped_.insert(token.id);
    }
  }

  std::vector<TokenId> encode(std::string_view text, bool add_special) const override {
    return encode_with(WordCache(*parts_.model), text, add_special);
  }

  std::vector<TokenId> encode_noting(std::string_view text, MergeParts& parts) const override {
    return encode_with(WordCache(*parts_.model, &parts), text, false);
  }

  bool is_basic(TokenId id) const override {
    return parts_.model->is_basic(id) || kept_always_.contains(id);
  }

  std::string decode(std::span<const TokenId> ids, bool skip_special) const override {
    std::vector<std::string> tokens;
    for (const TokenId id : ids) {
      if (skip_special && special_.contains(id) && !never_skipped_.contains(id)) continue;
      const auto spelled = parts_.spelling.find(id);
      const std::string_view token =
          spelled == parts_.spelling.end() ? parts_.vocabulary.token(id) : spelled->second;
      if (token.empty()) continue;
      tokens.emplace_back(token);
    }
    std::string text;
    if (parts_.decoder) {
      for (const std::string& part : parts_.decoder(std::move(tokens))) text += part;
      return text;
    }
    for (std::size_t i = 0; i < tokens.size(); ++i) text += (i == 0 ? "" : " ") + tokens[i];
    return text;
  }

  std::int64_t vocabulary_size() const override { return parts_.vocabulary.size(); }
  std::optional<TokenId> bos() const override { return parts_.special.bos; }
  std::optional<TokenId> eos() const override { return parts_.special.eos; }
  std::vector<TokenId> ends() const override { return parts_.special.ends(); }
  std::optional<TokenId> unknown() const override { return parts_.special.unknown; }
  std::optional<TokenId> padding() const override { return parts_.special.padding; }
  bool adds_bos() const override {
    const std::vector<TokenId>& before = parts_.surrounding.before;
    return !before.empty() && before.front() == parts_.special.bos;
  }
  std::optional<TokenId> id_of(std::string_view token) const override {
    return parts_.vocabulary.id_of(token);
  }
  std::string_view token(TokenId id) const override { return parts_.vocabulary.token(id); }
  bool is_special(TokenId id) const override { return special_.contains(id); }
  std::optional<std::string> chat_template() const override { return parts_.special.chat_template; }

 private:
  std::vector<TokenId> encode_with(WordCache cache, std::string_view text, bool add_special) const {
    std::string repaired;
    if (well_formed_prefix(text) != text.size()) {
      repaired = to_well_formed(text);
      text = repaired;
    }
    std::vector<TokenId> ids;
    const auto& [before, after] = parts_.surrounding;
    if (add_special) ids = before;
    for (const Part& part : raw_.split(text)) {
      if (part.token) {
        ids.push_back(*part.token);
      } else {
        Piece piece{std::string(text.substr(part.begin, part.end - part.begin)), part.begin == 0};
        encode_piece(std::move(piece), cache, ids);
      }
    }
    if (add_special) ids.insert(ids.end(), after.begin(), after.end());
    return ids;
  }

  void encode_piece(Piece piece, WordCache& cache, std::vector<TokenId>& ids) const {
    if (parts_.normalizer) parts_.normalizer(piece);
    for (const Part& part : normalized_.split(piece.text)) {
      if (part.token) {
        ids.push_back(*part.token);
        continue;
      }
      std::vector<Piece> words;
      words.push_back({piece.text.substr(part.begin, part.end - part.begin),
                       piece.at_start && part.begin == 0});
      if (parts_.pre_tokenizer) parts_.pre_tokenizer(words);
      for (const Piece& word : words) cache.encode(word.text, ids);
    }
  }

  PipelineParts parts_;
  std::unordered_set<TokenId> special_, never_skipped_, kept_always_;
  AddedTokenFinder raw_, normalized_;
};

}  // namespace

std::shared_ptr<const Tokenizer> make_pipeline(PipelineParts parts) {
  return std::make_shared<Pipeline>(std::move(parts));
}

}  // namespace attar::tokenize
