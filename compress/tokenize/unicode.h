// Unicode for the tokenizers: well-formed UTF-8, character classes, normal forms.
//
// Classes come from utf8proc 2.8 (Unicode 15), less what `tokenizers` does not know (see
// young_characters.h). Ids can differ from it only on characters of Unicode 15 and later: the
// expressions run on the tables of PCRE2 10.42 (Unicode 14).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace attar::tokenize {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD
inline constexpr std::string_view kSpaceMark = "\xE2\x96\x81";    // U+2581, sentencepiece's space

// Length in bytes of the character that starts with this byte of well-formed UTF-8.
std::size_t character_length(char first);

// The character at the start of `text`, which is well-formed and not empty.
char32_t first_character(std::string_view text);

void append_character(std::string& text, char32_t character);

// Length of the longest well-formed prefix of `text`.
std::size_t well_formed_prefix(std::string_view text);

// Throws BadInput for a token that is none: one that is looked for in text would cut a character.
void require_well_formed(std::string_view token, std::int64_t id, std::string_view where);

// `text` with each maximal ill-formed part replaced by U+FFFD (Unicode 15, section 3.9, table 3-8),
// as Python's decode(errors="replace") and Rust's from_utf8_lossy.
std::string to_well_formed(std::string_view text);

bool is_whitespace(char32_t c);   // White_Space
bool is_number(char32_t c);       // general categories N*
bool is_punctuation(char32_t c);  // general categories P* and all ASCII signs
bool is_word(char32_t c);         // as \w: letters, marks, decimal digits, connectors
bool is_mark(char32_t c);         // general categories M*

enum class NormalForm { nfc, nfd, nfkc, nfkd };

// `text` is well-formed. Normal forms of Unicode 9, as `tokenizers` has them.
std::string to_normal_form(std::string_view text, NormalForm form);

// Character by character, without regard to the neighbours (no final sigma).
std::string to_lower(std::string_view text);

// `text` with all `from` replaced by `to`. `from` is not empty.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace attar::tokenize
