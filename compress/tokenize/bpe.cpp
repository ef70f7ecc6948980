#include "compress/tokenize/bpe.h"

#include <algorithm>
#include <limits>

#include "compress/core/errors.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

std::uint64_t pair_key(TokenId left, TokenId right) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
         static_cast<std::uint32_t>(right);
}

}  // namespace

std::array<TokenId, 256> byte_tokens(const Vocabulary& vocabulary) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  std::array<TokenId, 256> ids;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string token = {'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'};
    ids[byte] = vocabulary.id_of(token).value_or(-1);
  }
  return ids;
}

Bpe::Bpe(std::shared_ptr<const Vocabulary> vocabulary, const Pairs& merges, BpeOptions options,
         std::string_view where)
    : vocabulary_(std::move(vocabulary)),
      options_(std::move(options)),
      byte_tokens_(byte_tokens(*vocabulary_)) {
  const std::string& prefix = options_.continuing_prefix;
  merges_.reserve(merges.size());
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const std::string joined =
        std::string(left) + std::string(right.substr(std::min(prefix.size(), right.size())));
    const auto left_id = vocabulary_->id_of(left);
    const auto right_id = vocabulary_->id_of(right);
    const auto joined_id = vocabulary_->id_of(joined);
    require(left_id && right_id && joined_id, where, "merge ", rank, " ('", left, "' + '", right,
            "') names a token that is not in the vocabulary");
    merges_[pair_key(*left_id, *right_id)] = {static_cast<double>(rank), *joined_id};
  }
}

bool Bpe::append_byte_tokens(std::string_view text, std::vector<Symbol>& symbols) const {
  for (const char c : text) {
    if (byte_tokens_[static_cast<unsigned char>(c)] < 0) return false;
  }
  for (const char c : text) append_symbol(symbols, byte_tokens_[static_cast<unsigned char>(c)], 1);
  return true;
}

std::vector<Symbol> Bpe::characters(std::string_view word) const {
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  std::string affixed;
  std::size_t pending = 0;  // bytes of unknown characters that wait for their token
  const auto flush = [&] {
    if (pending > 0) append_symbol(symbols, *options_.unknown, pending);
    pending = 0;
  };
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t length = character_length(word[at]);
    std::string_view text = word.substr(at, length);
    const bool add_prefix = at > 0 && !options_.continuing_prefix.empty();
    const bool add_suffix = at + length == word.size() && !options_.word_suffix.empty();
    if (add_prefix || add_suffix) {
      affixed = add_prefix ? options_.continuing_prefix : std::string();
      affixed += text;
      if (add_suffix) affixed += options_.word_suffix;
      text = affixed;
    }
    at += length;
    if (const auto id = vocabulary_->id_of(text)) {
      flush();
      append_symbol(symbols, *id, length);
    } else if (options_.byte_fallback && append_byte_tokens(text, symbols)) {
      continue;  // a pending unknown stays behind these bytes, as in `tokenizers`
    } else if (options_.unknown) {
      if (!options_.fuse_unknown) flush();
      pending += length;
    }
  }
  flush();
  return symbols;
}

bool Bpe::is_basic(TokenId id) const {
  std::string_view token = vocabulary_->token(id);
  if (token.empty()) return false;
  const bool bytes = std::ranges::find(byte_tokens_, -1) == byte_tokens_.end();
  if (options_.byte_fallback && bytes) {
    return token == kSpaceMark || std::ranges::find(byte_tokens_, id) != byte_tokens_.end();
  }
  const std::string& prefix = options_.continuing_prefix;
  const std::string& suffix = options_.word_suffix;
  if (!prefix.empty() && token.starts_with(prefix)) token.remove_prefix(prefix.size());
  if (!suffix.empty() && token.ends_with(suffix)) token.remove_suffix(suffix.size());
  return token.empty() || character_length(token[0]) == token.size();
}

void Bpe::encode(std::string_view word, std::vector<TokenId>& ids, MergeParts* parts) const {
  if (word.empty()) return;
  require(word.size() < std::numeric_limits<std::int32_t>::max(), "tokenize", "a word of ",
          word.size(), " bytes; split the text below 2 GiB");
  if (options_.ignore_merges) {
    if (const auto id = vocabulary_->id_of(word)) return ids.push_back(*id);
  }
  std::vector<Symbol> symbols = characters(word);
  const auto find = [this](const Symbol& left, const Symbol& right) -> std::optional<Merge> {
    const auto found = merges_.find(pair_key(left.id, right.id));
    if (found == merges_.end()) return std::nullopt;
    return found->second;
  };
  if (parts == nullptr) {
    merge_symbols(symbols, find);
  } else {
    merge_symbols(symbols, find, [&](const Symbol& left, const Symbol& right, TokenId whole) {
      note_part(*parts, whole, left.id);
      note_part(*parts, whole, right.id);
    });
  }
  for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    ids.push_back(symbols[i].id);
  }
}

}  // namespace attar::tokenize
