#include "compress/tokenize/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <unordered_map>
#include <unordered_set>

#include "compress/core/errors.h"
#include "compress/tokenize/added_tokens.h"
#include "compress/tokenize/bpe.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

class SentencePiece : public Tokenizer {
 public:
  SentencePiece(SentencePieceModel model, std::string_view where);

  std::vector<TokenId> encode(std::string_view text, bool add_special) const override {
    return encode_with(text, add_special, nullptr);
  }
  std::vector<TokenId> encode_noting(std::string_view text, MergeParts& parts) const override {
    return encode_with(text, false, &parts);
  }
  bool is_basic(TokenId id) const override;
  std::string decode(std::span<const TokenId> ids, bool skip_special) const override;

  std::int64_t vocabulary_size() const override { return vocabulary_.size(); }
  std::optional<TokenId> bos() const override { return model_.special.bos; }
  std::optional<TokenId> eos() const override { return model_.special.eos; }
  std::vector<TokenId> ends() const override { return model_.special.ends(); }
  std::optional<TokenId> unknown() const override { return model_.special.unknown; }
  std::optional<TokenId> padding() const override { return model_.special.padding; }
  bool adds_bos() const override { return model_.add_bos && model_.special.bos; }
  std::optional<TokenId> id_of(std::string_view token) const override {
    return vocabulary_.id_of(token);
  }
  std::string_view token(TokenId id) const override { return vocabulary_.token(id); }
  bool is_special(TokenId id) const override {
    return type_of(id) == PieceType::control || type_of(id) == PieceType::unknown;
  }
  std::optional<std::string> chat_template() const override { return model_.special.chat_template; }

 private:
  using Segments = std::map<std::string_view, std::uint32_t>;  // unused piece -> its left length

  PieceType type_of(TokenId id) const {
    return id >= 0 && id < vocabulary_.size() ? model_.pieces[id].type : PieceType::unused;
  }
  Charsmap::Replacement normalize_prefix(std::string_view text) const;
  std::string normalize(std::string_view text) const;
  std::vector<TokenId> encode_with(std::string_view text, bool add_special,
                                   MergeParts* parts) const;
  void encode_text(std::string_view text, std::vector<TokenId>& ids, MergeParts* parts) const;
  void encode_word(std::string_view word, std::vector<TokenId>& ids, MergeParts* parts) const;
  void append_segment(std::string_view text, const Segments& unused,
                      std::vector<TokenId>& ids) const;
  void append_unknown(std::string_view text, std::vector<TokenId>& ids) const;

  SentencePieceModel model_;
  Vocabulary vocabulary_;
  std::array<TokenId, 256> bytes_{};
  std::unordered_map<std::string_view, TokenId> mergeable_;  // views into model_.pieces
  std::size_t longest_ = 0;                                  // bytes of the longest of them
  bool words_end_at_marks_ = true;  // no piece goes on over a mark behind another character
  PrefixTrie user_defined_;
  AddedTokenFinder in_text_;
};

// Whether a mark stands behind a character that is none.
bool crosses_words(std::string_view piece) {
  for (std::size_t at = piece.find(kSpaceMark); at != std::string_view::npos;
       at = piece.find(kSpaceMark, at + 1)) {
    if (at > 0 && !piece.substr(0, at).ends_with(kSpaceMark)) return true;
  }
  return false;
}

SentencePiece::SentencePiece(SentencePieceModel model, std::string_view where)
    : model_(std::move(model)) {
  for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
    const ScoredPiece& piece = model_.pieces[id];
    const auto number = static_cast<TokenId>(id);
    require(std::isfinite(piece.score), where, "piece ", id, " ('", piece.text, "') has score ",
            piece.score);
    vocabulary_.add(piece.text, number, where);
    const bool in_text = model_.control_in_text && piece.type != PieceType::normal &&
                         piece.type != PieceType::byte && piece.type != PieceType::unused;
    if (in_text || piece.type == PieceType::user_defined) {
      require_well_formed(piece.text, number, where);
    }
    if (in_text) in_text_.add({piece.text, number}, piece.text);
    if (piece.type == PieceType::user_defined) user_defined_.add(piece.text, number);
    if (piece.type != PieceType::normal && piece.type != PieceType::user_defined &&
        piece.type != PieceType::unused) {
      continue;
    }
    mergeable_.try_emplace(piece.text, number);
    longest_ = std::max(longest_, piece.text.size());
    words_end_at_marks_ = words_end_at_marks_ && !crosses_words(piece.text);
  }
  bytes_ = byte_tokens(vocabulary_);
  require(!model_.byte_fallback || std::ranges::find(bytes_, -1) == bytes_.end(), where,
          "byte fallback is on, but not all of <0x00> ... <0xFF> are in the vocabulary");
  require(model_.byte_fallback || model_.special.unknown.has_value(), where,
          "the vocabulary has neither byte pieces nor an unknown piece");
}

Charsmap::Replacement SentencePiece::normalize_prefix(std::string_view text) const {
  if (const auto match = user_defined_.longest(text); match.length > 0) {
    return {match.length, text.substr(0, match.length)};
  }
  const auto mapped = model_.charsmap.longest(text);
  if (mapped.length > 0) return mapped;
  const std::size_t length = character_length(text[0]);
  return {length, text.substr(0, length)};
}

std::string SentencePiece::normalize(std::string_view text) const {
  const bool squeeze = model_.remove_extra_whitespaces;
  const bool as_suffix = model_.treat_whitespace_as_suffix;
  const std::string_view space = model_.escape_whitespaces ? kSpaceMark : " ";
  while (squeeze && !text.empty() && normalize_prefix(text).text == " ") {
    text.remove_prefix(normalize_prefix(text).length);
  }
  std::string result;
  if (text.empty()) return result;
  if (model_.add_dummy_prefix && !as_suffix) result += space;
  bool after_space = squeeze;
  while (!text.empty()) {
    const auto [length, replacement] = normalize_prefix(text);
    text.remove_prefix(length);
    std::string_view rest = replacement;
    while (after_space && rest.starts_with(' ')) rest.remove_prefix(1);
    result += replace_all(rest, " ", space);
    if (!rest.empty()) after_space = squeeze && rest.ends_with(' ');
  }
  while (squeeze && result.ends_with(space)) result.resize(result.size() - space.size());
  if (model_.add_dummy_prefix && as_suffix) result += space;
  return result;
}

bool SentencePiece::is_basic(TokenId id) const {
  const PieceType type = type_of(id);
  const SpecialIds& special = model_.special;
  if (type != PieceType::normal && type != PieceType::unused) return true;
  for (const auto& named : {special.bos, special.eos, special.unknown, special.padding}) {
    if (named == id) return true;
  }
  const std::string_view piece = vocabulary_.token(id);
  if (piece.empty()) return false;
  return model_.byte_fallback ? piece == kSpaceMark : character_length(piece[0]) == piece.size();
}

std::vector<TokenId> SentencePiece::encode_with(std::string_view text, bool add_special,
                                                MergeParts* parts) const {
  std::string repaired;
  if (well_formed_prefix(text) != text.size()) {
    repaired = to_well_formed(text);
    text = repaired;
  }
  require(text.size() < std::numeric_limits<std::int32_t>::max() / 8, "tokenize", "a text of ",
          text.size(), " bytes; split it below 256 MiB");
  std::vector<TokenId> ids;
  if (add_special && adds_bos()) ids.push_back(*bos());
  for (const Part& part : in_text_.split(text)) {
    if (part.token) {
      ids.push_back(*part.token);
    } else {
      encode_text(text.substr(part.begin, part.end - part.begin), ids, parts);
    }
  }
  if (add_special && model_.add_eos && eos()) ids.push_back(*eos());
  return ids;
}

void SentencePiece::encode_text(std::string_view text, std::vector<TokenId>& ids,
                                MergeParts* parts) const {
  const std::string normalized = normalize(text);
  const std::string_view rest = normalized;
  if (!words_end_at_marks_) return encode_word(rest, ids, parts);
  std::size_t begin = 0;
  for (std::size_t mark = rest.find(kSpaceMark); mark != std::string_view::npos;
       mark = rest.find(kSpaceMark, mark + 1)) {
    if (mark == begin || rest.substr(0, mark).ends_with(kSpaceMark)) continue;
    encode_word(rest.substr(begin, mark - begin), ids, parts);
    begin = mark;
  }
  encode_word(rest.substr(begin), ids, parts);
}

void SentencePiece::encode_word(std::string_view word, std::vector<TokenId>& ids,
                                MergeParts* parts) const {
  constexpr TokenId kFrozen = -2;  // a user-defined piece takes part in no merge
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (std::size_t at = 0; at < word.size();) {
    const auto match = user_defined_.longest(word.substr(at));
    const std::size_t length = match.length > 0 ? match.length : character_length(word[at]);
    append_symbol(symbols, match.length > 0 ? kFrozen : -1, length);
    at += length;
  }
  Segments unused;
  const auto find = [&](const Symbol& left, const Symbol& right) -> std::optional<Merge> {
    if (left.id == kFrozen || right.id == kFrozen) return std::nullopt;
    const std::size_t length = std::size_t{left.length} + right.length;
    if (length > longest_) return std::nullopt;
    const auto found = mergeable_.find(word.substr(left.begin, length));
    if (found == mergeable_.end()) return std::nullopt;
    const ScoredPiece& piece = model_.pieces[found->second];
    if (piece.type == PieceType::unused) unused[piece.text] = left.length;
    return Merge{-static_cast<double>(piece.score), found->second};
  };
  merge_symbols(symbols, find, [&](const Symbol& left, const Symbol& right, TokenId whole) {
    if (parts == nullptr) return;
    for (const Symbol* symbol : {&left, &right}) {
      const auto part = vocabulary_.id_of(word.substr(symbol->begin, symbol->length)).value_or(-1);
      note_part(*parts, whole, part);
      // It falls back into its parts, so nothing but they can say that it stood in the way.
      if (part >= 0 && type_of(whole) == PieceType::unused) note_part(*parts, part, whole);
    }
  });
  for (std::int32_t i = symbols.empty() ? -1 : 0; i >= 0; i = symbols[i].next) {
    append_segment(word.substr(symbols[i].begin, symbols[i].length), unused, ids);
  }
}

// An unused piece is only a step on the way: it falls back into the two that made it.
void SentencePiece::append_segment(std::string_view text, const Segments& unused,
                                   std::vector<TokenId>& ids) const {
  std::vector<std::string_view> open = {text};
  while (!open.empty()) {
    const std::string_view part = open.back();
    open.pop_back();
    const auto id = vocabulary_.id_of(part);
    const auto parts = unused.find(part);
    if (id && type_of(*id) == PieceType::unused && parts != unused.end()) {
      open.push_back(part.substr(parts->second));
      open.push_back(part.substr(0, parts->second));
    } else if (id && type_of(*id) != PieceType::unknown) {
      ids.push_back(*id);
    } else {
      append_unknown(part, ids);
    }
  }
}

void SentencePiece::append_unknown(std::string_view text, std::vector<TokenId>& ids) const {
  if (model_.byte_fallback) {
    for (const char c : text) ids.push_back(bytes_[static_cast<unsigned char>(c)]);
  } else if (ids.empty() || ids.back() != *model_.special.unknown) {
    ids.push_back(*model_.special.unknown);  // one for a run of unknown characters
  }
}

std::string SentencePiece::decode(std::span<const TokenId> ids, bool skip_special) const {
  const bool strips = model_.add_dummy_prefix || model_.remove_extra_whitespaces;
  std::string text, bytes;
  bool at_start = true;  // the first space belongs to the encoder
  bool stripped = false;
  const auto flush = [&] {
    std::string_view rest = bytes;  // one U+FFFD for each byte that belongs to no character
    while (!rest.empty()) {
      const std::size_t good = well_formed_prefix(rest);
      text += rest.substr(0, good);
      if (good < rest.size()) text += kReplacement;
      rest.remove_prefix(std::min(good + 1, rest.size()));
    }
    bytes.clear();
  };
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocabulary_.size()) continue;
    const ScoredPiece& piece = model_.pieces[id];
    if (piece.type == PieceType::byte) {
      const auto found = std::ranges::find(bytes_, id);
      if (found != bytes_.end()) bytes += static_cast<char>(found - bytes_.begin());
      continue;
    }
    flush();
    if (stripped || !text.empty()) at_start = false;
    if (piece.type == PieceType::control) {
      if (!skip_special) text += piece.text;
    } else if (piece.type == PieceType::unknown) {
      text += model_.unknown_surface;
    } else {
      std::string_view rest = piece.text;
      if (at_start && strips && rest.starts_with(kSpaceMark)) {
        rest.remove_prefix(kSpaceMark.size());
        stripped = !model_.remove_extra_whitespaces;
      }
      text += replace_all(rest, kSpaceMark, " ");
    }
  }
  flush();
  return text;
}

}  // namespace

std::shared_ptr<const Tokenizer> make_sentencepiece(SentencePieceModel model,
                                                    std::string_view where) {
  return std::make_shared<SentencePiece>(std::move(model), where);
}

}  // namespace attar::tokenize
