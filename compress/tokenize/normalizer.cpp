#include "compress/tokenize/normalizer.h"

#include <memory>

#include "compress/tokenize/byte_level.h"
#include "compress/tokenize/read_pattern.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

Normalizer normal_form(NormalForm form) {
  return [form](Piece& piece) { piece.text = to_normal_form(piece.text, form); };
}

void strip(Piece& piece, bool left, bool right) {
  const std::string_view text = piece.text;
  std::size_t begin = 0;
  while (left && begin < text.size() && is_whitespace(first_character(text.substr(begin)))) {
    begin += character_length(text[begin]);
  }
  std::size_t end = begin;  // after the last character that is no whitespace
  for (std::size_t at = begin; at < text.size(); at += character_length(text[at])) {
    if (!is_whitespace(first_character(text.substr(at)))) end = at + character_length(text[at]);
  }
  if (begin > 0) piece.at_start = false;
  piece.text = std::string(text.substr(begin, (right ? end : text.size()) - begin));
}

void strip_accents(Piece& piece) {
  std::string kept;
  for (std::size_t at = 0; at < piece.text.size();) {
    const std::size_t length = character_length(piece.text[at]);
    const std::string_view character = std::string_view(piece.text).substr(at, length);
    if (!is_mark(first_character(character))) kept += character;
    at += length;
  }
  piece.text = std::move(kept);
}

Normalizer read_replace(const Node& node) {
  const Pattern pattern = read_pattern(node);
  return [pattern, content = node["content"].string()](Piece& piece) {
    std::string replaced;
    std::size_t at = 0;
    for (const Span& span : pattern.find_all(piece.text)) {
      replaced.append(piece.text, at, span.begin - at);
      replaced += content;
      at = span.end;
    }
    replaced.append(piece.text, at);
    piece.text = std::move(replaced);
  };
}

Normalizer read_sequence(const Node& node) {
  std::vector<Normalizer> steps;
  for (std::size_t i = 0; i < node.array().value.size(); ++i) {
    steps.push_back(read_normalizer(node[i]));
  }
  return [steps](Piece& piece) {
    for (const Normalizer& step : steps) step(piece);
  };
}

}  // namespace

Normalizer read_normalizer(const Node& node) {
  const std::string type = node.type();
  if (type == "NFC") return normal_form(NormalForm::nfc);
  if (type == "NFD") return normal_form(NormalForm::nfd);
  if (type == "NFKC") return normal_form(NormalForm::nfkc);
  if (type == "NFKD") return normal_form(NormalForm::nfkd);
  if (type == "Lowercase") return [](Piece& piece) { piece.text = to_lower(piece.text); };
  if (type == "StripAccents") return strip_accents;
  if (type == "Strip") {
    return [left = node["strip_left"].boolean(),
            right = node["strip_right"].boolean()](Piece& piece) { strip(piece, left, right); };
  }
  if (type == "Prepend") {
    return [prefix = node["prepend"].string()](Piece& piece) {
      if (!piece.text.empty()) piece.text.insert(0, prefix);
    };
  }
  if (type == "Replace") return read_replace(node);
  if (type == "ByteLevel") {
    return [](Piece& piece) {
      std::string mapped;
      append_byte_level(piece.text, mapped);
      piece.text = std::move(mapped);
    };
  }
  if (type == "Sequence") return read_sequence(node["normalizers"]);
  refuse_type(node, "normalizer");
}

}  // namespace attar::tokenize
