// Regular expressions of tokenizer files. They are written for Oniguruma (Ruby syntax); attar runs
// them on PCRE2 after a translation of what the two read differently:
//
//   \s \S \w \W     the Unicode properties White_Space and \w of UTS 18, also inside of classes
//   \h \H           hexadecimal digits
//   ^ $             at every line
//
// Refused, since PCRE2 reads them otherwise: \b \B \X \R \K, (?m) (?x), a possessive interval
// "{1,3}+", a class inside of a class, "&&" in a class.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace attar::tokenize {

// A part of a text: bytes [begin, end).
struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
};

// A compiled expression; may be used from several threads at once.
class Pattern {
 public:
  // `where` names the expression's place in messages. Throws BadInput for what does not compile.
  Pattern(std::string_view expression, std::string_view where);

  // The pattern that matches exactly `text`.
  static Pattern literal(std::string_view text, std::string_view where);

  // All matches in well-formed UTF-8, leftmost first, without overlap; possibly empty ones.
  // Throws BadInput when a match would take more than PCRE2's limits.
  std::vector<Span> find_all(std::string_view text) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
  std::string where_;
};

// The PCRE2 spelling of an Oniguruma expression; see above.
std::string to_pcre2(std::string_view expression, std::string_view where);

}  // namespace attar::tokenize
