// The few rules of Python's str and re that the tasks stand on, over UTF-8. Ill-formed bytes count
// as one character each and are never whitespace.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace attar::eval {

// str.isspace for one code point, which is also what `\s` means in re.
bool is_space(char32_t code_point);

// Bytes of whitespace at the start or at the end of `text`.
std::size_t leading_space_bytes(std::string_view text);
std::size_t trailing_space_bytes(std::string_view text);

// str.strip() and str.rstrip() without arguments.
std::string_view strip(std::string_view text);
std::string_view rstrip(std::string_view text);

// len(text): code points.
std::int64_t count_characters(std::string_view text);

// len(re.split(r"\s+", text)): runs of whitespace plus one, so that blanks at the ends count.
std::int64_t count_words(std::string_view text);

// text.replace(from, to): left to right, without looking at what was put in. `from` is not empty.
std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

}  // namespace attar::eval
