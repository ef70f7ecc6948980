#include "compress/tokenize/unicode.h"

#include <utf8proc.h>

#include <cstdlib>
#include <new>

#include "compress/core/errors.h"
#include "compress/tokenize/young_characters.h"

namespace attar::tokenize {
namespace {

struct Lead {
  int length = 0;       // bytes of the whole character; 0 for a byte that starts none
  unsigned low = 0x80;  // range of the second byte
  unsigned high = 0xBF;
};

// Table 3-7 of Unicode 15: well-formed byte sequences.
Lead lead(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

struct Step {
  std::size_t bytes;  // at least 1
  bool well_formed;
};

// The character at `text[at]`, or the maximal part of one.
Step step(std::string_view text, std::size_t at) {
  const Lead expected = lead(static_cast<unsigned char>(text[at]));
  if (expected.length == 0) return {1, false};
  for (int i = 1; i < expected.length; ++i) {
    if (at + i >= text.size()) return {static_cast<std::size_t>(i), false};
    const auto byte = static_cast<unsigned char>(text[at + i]);
    const unsigned low = i == 1 ? expected.low : 0x80;
    const unsigned high = i == 1 ? expected.high : 0xBF;
    if (byte < low || byte > high) return {static_cast<std::size_t>(i), false};
  }
  return {static_cast<std::size_t>(expected.length), true};
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// `text` holds no young character: those are barriers that nothing moves across.
void append_normal_form(std::string_view text, NormalForm form, std::string& result) {
  if (text.empty()) return;
  int options = UTF8PROC_STABLE;
  const bool composed = form == NormalForm::nfc || form == NormalForm::nfkc;
  options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::nfkc || form == NormalForm::nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* mapped = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                   static_cast<utf8proc_option_t>(options));
  if (length == UTF8PROC_ERROR_NOMEM) throw std::bad_alloc();
  require(length >= 0, "tokenize", "no normal form for a text of ", text.size(),
          " bytes: ", utf8proc_errmsg(length), "; split the text");
  result.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length));
  std::free(mapped);
}

}  // namespace

std::size_t character_length(char first) {
  const int length = lead(static_cast<unsigned char>(first)).length;
  return length == 0 ? 1 : static_cast<std::size_t>(length);
}

char32_t first_character(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[i]));
  };
  switch (character_length(text[0])) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1F) << 6 | (byte(1) & 0x3F);
    case 3:
      return (byte(0) & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    default:
      return (byte(0) & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 |
             (byte(3) & 0x3F);
  }
}

void append_character(std::string& text, char32_t character) {
  utf8proc_uint8_t bytes[4];
  const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
  text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

std::size_t well_formed_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const Step next = step(text, at);
    if (!next.well_formed) break;
    at += next.bytes;
  }
  return at;
}

void require_well_formed(std::string_view token, std::int64_t id, std::string_view where) {
  require(well_formed_prefix(token) == token.size(), where, "token ", id, " is no UTF-8: '",
          to_well_formed(token), "'; convert the model again");
}

std::string to_well_formed(std::string_view text) {
  std::size_t at = well_formed_prefix(text);
  std::string result(text.substr(0, at));
  while (at < text.size()) {
    const Step next = step(text, at);
    result += next.well_formed ? text.substr(at, next.bytes) : kReplacement;
    at += next.bytes;
  }
  return result;
}

bool is_whitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_number(char32_t c) {
  const auto kind = category(c);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL ||
         kind == UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c > 0x20 && c < 0x7F) && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'Z') &&
           !(c >= 'a' && c <= 'z');
  if (c == 0x166D || c == 0x111C9) return true;  // until Unicode 12 and 8
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO &&
         !in_ranges(c, kYoungPunctuation);
}

bool is_word(char32_t c) {
  const auto kind = category(c);
  const bool other_alphabetic = kind == UTF8PROC_CATEGORY_NL || (c >= 0x24B6 && c <= 0x24E9) ||
                                (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
                                (c >= 0x1F170 && c <= 0x1F189);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_ND) || other_alphabetic ||
         kind == UTF8PROC_CATEGORY_PC || c == 0x200C || c == 0x200D;
}

bool is_mark(char32_t c) {
  const auto kind = category(c);
  if (c == 0x1CF2 || c == 0x1CF3) return true;  // until Unicode 12
  return kind >= UTF8PROC_CATEGORY_MN && kind <= UTF8PROC_CATEGORY_ME && !in_ranges(c, kYoungMarks);
}

std::string to_normal_form(std::string_view text, NormalForm form) {
  std::string result;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = character_length(text[at]);
    if (length > 1 && in_ranges(first_character(text.substr(at)), kYoungMarks)) {
      append_normal_form(text.substr(done, at - done), form, result);
      result += text.substr(at, length);
      done = at + length;
    }
    at += length;
  }
  append_normal_form(text.substr(done), form, result);
  return result;
}

std::string to_lower(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); at += character_length(text[at])) {
    const char32_t c = first_character(text.substr(at));
    if (c == 0x130) {
      result += "i\xCC\x87";  // the only character whose lower case is two: i and U+0307
    } else {
      append_character(result,
                       static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return result;
}

std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string result;
  std::size_t at = 0;
  for (std::size_t hit; (hit = text.find(from, at)) != std::string_view::npos;) {
    result += text.substr(at, hit - at);
    result += to;
    at = hit + from.size();
  }
  return result += text.substr(at);
}

}  // namespace attar::tokenize
