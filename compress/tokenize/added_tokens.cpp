#include "compress/tokenize/added_tokens.h"

#include <algorithm>

#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

// Start of the last character of `text`, which is not empty.
std::size_t last_character(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

bool stands_alone(std::string_view text, std::size_t begin, std::size_t end) {
  const std::string_view before = text.substr(0, begin);
  const std::string_view after = text.substr(end);
  const bool word_before =
      !before.empty() && is_word(first_character(before.substr(last_character(before))));
  return !word_before && (after.empty() || !is_word(first_character(after)));
}

std::size_t skip_spaces_back(std::string_view text, std::size_t at) {
  while (at > 0) {
    const std::size_t previous = last_character(text.substr(0, at));
    if (!is_whitespace(first_character(text.substr(previous)))) break;
    at = previous;
  }
  return at;
}

std::size_t skip_spaces(std::string_view text, std::size_t at) {
  while (at < text.size() && is_whitespace(first_character(text.substr(at)))) {
    at += character_length(text[at]);
  }
  return at;
}

}  // namespace

void PrefixTrie::add(std::string_view text, std::int32_t number) {
  if (text.empty()) return;
  starts_[static_cast<unsigned char>(text[0])] = true;
  std::uint32_t node = 0;
  for (const char c : text) {
    const std::uint64_t key = std::uint64_t{node} << 8 | static_cast<unsigned char>(c);
    const auto [edge, fresh] = edges_.try_emplace(key, static_cast<std::uint32_t>(numbers_.size()));
    if (fresh) numbers_.push_back(-1);
    node = edge->second;
  }
  numbers_[node] = number;
}

PrefixTrie::Match PrefixTrie::longest(std::string_view text) const {
  Match best;
  if (text.empty() || !starts_[static_cast<unsigned char>(text[0])]) return best;
  std::uint32_t node = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto edge = edges_.find(std::uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
    if (edge == edges_.end()) break;
    node = edge->second;
    if (numbers_[node] >= 0) best = {i + 1, numbers_[node]};
  }
  return best;
}

void AddedTokenFinder::add(const AddedToken& token, std::string_view content) {
  trie_.add(content, static_cast<std::int32_t>(tokens_.size()));
  tokens_.push_back(token);
}

std::vector<Part> AddedTokenFinder::split(std::string_view text) const {
  std::vector<Part> parts;
  std::size_t done = 0;
  for (std::size_t at = 0; !trie_.empty() && at < text.size();) {
    const PrefixTrie::Match match = trie_.longest(text.substr(at));
    if (match.length == 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[match.number];
    std::size_t begin = at;
    std::size_t end = at + match.length;
    at = end;
    if (token.single_word && !stands_alone(text, begin, end)) continue;
    if (token.lstrip) begin = skip_spaces_back(text, begin);
    begin = std::max(begin, done);  // an earlier token may have taken the spaces
    if (token.rstrip) end = skip_spaces(text, end);
    if (done < begin) parts.push_back({std::nullopt, done, begin});
    parts.push_back({token.id, begin, std::max(begin, end)});
    done = std::max(done, end);
  }
  if (done < text.size()) parts.push_back({std::nullopt, done, text.size()});
  return parts;
}

}  // namespace attar::tokenize
