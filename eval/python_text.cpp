#include "eval/python_text.h"

namespace attar::eval {
namespace {

struct Character {
  char32_t code_point;
  std::size_t bytes;
};

constexpr char32_t kIllFormed = 0xFFFFFFFF;

bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

// The character at the start of `text`, which is not empty. Whitespace lies below U+3001, so longer
// forms need no check of their value.
Character first_character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  const std::size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC2 ? 2 : 1;
  if (bytes == 1 || lead > 0xF4 || text.size() < bytes) return {kIllFormed, 1};
  char32_t value = lead & (0x7FU >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if (!is_continuation(text[i])) return {kIllFormed, 1};
    value = value << 6 | (static_cast<unsigned char>(text[i]) & 0x3FU);
  }
  return {value, bytes};
}

// The character at the end of `text`, which is not empty.
Character last_character(std::string_view text) {
  for (std::size_t bytes = 1; bytes <= 4 && bytes <= text.size(); ++bytes) {
    const std::string_view tail = text.substr(text.size() - bytes);
    if (is_continuation(tail[0])) continue;
    const Character character = first_character(tail);
    if (character.bytes == bytes) return character;
    break;
  }
  return {kIllFormed, 1};
}

}  // namespace

bool is_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

std::size_t leading_space_bytes(std::string_view text) {
  std::size_t bytes = 0;
  while (bytes < text.size()) {
    const Character character = first_character(text.substr(bytes));
    if (!is_space(character.code_point)) break;
    bytes += character.bytes;
  }
  return bytes;
}

std::size_t trailing_space_bytes(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const Character character = last_character(text.substr(0, end));
    if (!is_space(character.code_point)) break;
    end -= character.bytes;
  }
  return text.size() - end;
}

std::string_view rstrip(std::string_view text) {
  return text.substr(0, text.size() - trailing_space_bytes(text));
}

std::string_view strip(std::string_view text) {
  return rstrip(text.substr(leading_space_bytes(text)));
}

std::int64_t count_characters(std::string_view text) {
  std::int64_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += first_character(text.substr(at)).bytes) ++count;
  return count;
}

std::int64_t count_words(std::string_view text) {
  std::int64_t words = 1;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t space = leading_space_bytes(text.substr(at));
    if (space > 0) ++words;
    at += space > 0 ? space : first_character(text.substr(at)).bytes;
  }
  return words;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  std::size_t at = 0;
  for (std::size_t found; (found = text.find(from, at)) != std::string_view::npos;) {
    result.append(text.substr(at, found - at)).append(to);
    at = found + from.size();
  }
  return result.append(text.substr(at));
}

}  // namespace attar::eval
