#include "compress/tokenize/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "compress/core/errors.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

constexpr std::size_t kMaxExpression = 1 << 16;
constexpr std::size_t kJitStackBytes = 64 << 20;

std::string error_text(int code) {
  std::array<unsigned char, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Walks over an expression and copies it, translated.
class Translation {
 public:
  Translation(std::string_view source, std::string_view where) : source_(source), where_(where) {}

  std::string run() {
    while (at_ < source_.size()) {
      if (source_[at_] == '\\') {
        escape();
      } else if (in_class_) {
        class_member();
      } else {
        outside();
      }
    }
    return std::move(result_);
  }

 private:
  bool next_is(std::string_view text) const { return source_.substr(at_).starts_with(text); }

  void copy(std::size_t count) {
    result_ += source_.substr(at_, count);
    at_ += count;
  }

  [[noreturn]] void refuse(std::string_view what) const {
    throw BadInput(message(where_, "the expression has ", what, " at byte ", at_,
                           ", which Oniguruma and PCRE2 read differently; write it otherwise"));
  }

  void bracket(std::string_view members, bool negated) {
    if (!in_class_) result_ += negated ? "[^" : "[";
    result_ += members;
    if (!in_class_) result_ += ']';
  }

  void escape() {
    // \w as in UTS 18, annex C
    constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}";
    constexpr std::string_view kHexadecimal = "0-9a-fA-F";
    require(at_ + 1 < source_.size(), where_, "the expression ends in a backslash");
    const char letter = source_[at_ + 1];
    switch (letter) {
      case 's':
        result_ += "\\p{White_Space}";
        break;
      case 'S':
        result_ += "\\P{White_Space}";
        break;
      case 'w':
      case 'W':
      case 'h':
      case 'H': {
        const bool negated = letter == 'W' || letter == 'H';
        if (negated && in_class_) refuse("\\W or \\H inside of a class");
        bracket(letter == 'w' || letter == 'W' ? kWord : kHexadecimal, negated);
        break;
      }
      case 'b':
      case 'B':
      case 'X':
      case 'R':
      case 'K':
        refuse("\\b, \\B, \\X, \\R or \\K");
      default:
        copy(1);
        copy(character_length(source_[at_]));
        return;
    }
    at_ += 2;
  }

  void class_member() {
    if (next_is("[:")) {
      const auto end = source_.find(":]", at_);
      require(end != std::string_view::npos, where_, "the expression has '[:' without ':]'");
      copy(end + 2 - at_);
      return;
    }
    if (source_[at_] == '[') refuse("a class inside of a class");
    if (next_is("&&")) refuse("'&&' inside of a class");
    if (source_[at_] == ']') in_class_ = false;
    copy(1);
  }

  void outside() {
    if (source_[at_] == '[') {
      in_class_ = true;
      copy(next_is("[^") ? 2 : 1);
      if (at_ < source_.size() && source_[at_] == ']') refuse("']' first in a class");
      return;
    }
    if (next_is("(?")) {
      for (std::size_t i = at_ + 2; i < source_.size(); ++i) {
        const char flag = source_[i];
        if (flag == 'm' || flag == 'x') refuse("(?m) or (?x)");
        if (flag != 'i' && flag != '-') break;
      }
    }
    const bool interval = source_[at_] == '}' && result_.find('{') != std::string::npos;
    if (interval && next_is("}+")) {
      const auto open = result_.rfind('{');
      const bool property = open >= 2 && result_[open - 2] == '\\';  // \p{L}+
      if (!property) refuse("a possessive interval '}+'");
    }
    copy(1);
  }

  std::string_view source_;
  std::string_view where_;
  std::size_t at_ = 0;
  bool in_class_ = false;
  std::string result_;
};

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};

using MatchData = std::unique_ptr<pcre2_match_data, Freer<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Freer<pcre2_match_context_free>>;
using JitStack = std::unique_ptr<pcre2_jit_stack, Freer<pcre2_jit_stack_free>>;

}  // namespace

struct Pattern::Compiled {
  std::unique_ptr<pcre2_code, Freer<pcre2_code_free>> code;
};

std::string to_pcre2(std::string_view expression, std::string_view where) {
  return Translation(expression, where).run();
}

Pattern::Pattern(std::string_view expression, std::string_view where) : where_(where) {
  require(expression.size() <= kMaxExpression, where, "the expression has ", expression.size(),
          " bytes, at most ", kMaxExpression, " are read");
  const std::string translated = to_pcre2(expression, where);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto compiled = std::make_shared<Compiled>();
  compiled->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()),
                                     translated.size(), PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE,
                                     &error, &offset, nullptr));
  require(compiled->code != nullptr, where, "the expression '", expression,
          "' does not compile: ", error_text(error), " at byte ", offset);
  pcre2_jit_compile(compiled->code.get(), PCRE2_JIT_COMPLETE);  // without it, only slower
  compiled_ = std::move(compiled);
}

Pattern Pattern::literal(std::string_view text, std::string_view where) {
  std::string escaped;
  for (const char c : text) {
    if (is_punctuation(static_cast<unsigned char>(c)) && static_cast<unsigned char>(c) < 0x80) {
      escaped += '\\';
    }
    escaped += c;
  }
  return Pattern(escaped, where);
}

std::vector<Span> Pattern::find_all(std::string_view text) const {
  const pcre2_code* code = compiled_->code.get();
  const MatchData match(pcre2_match_data_create(1, nullptr));
  const MatchContext context(pcre2_match_context_create(nullptr));
  JitStack stack;  // made when the 32 KiB of the machine stack do not suffice
  if (!match || !context) throw std::bad_alloc();
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  std::vector<Span> spans;
  std::size_t at = 0;
  while (at <= text.size()) {
    int found =
        pcre2_match(code, subject, text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), context.get());
    if (found == PCRE2_ERROR_JIT_STACKLIMIT && !stack) {
      stack.reset(pcre2_jit_stack_create(64 << 10, kJitStackBytes, nullptr));
      pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
      continue;
    }
    if (found == PCRE2_ERROR_NOMATCH) break;
    require(found >= 0, where_, "the expression gives up on a text of ", text.size(),
            " bytes at byte ", at, ": ", error_text(found), "; split the text");
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(match.get());
    const Span span{offsets[0], offsets[1]};
    const bool empty = span.begin >= span.end;
    const bool touches = !spans.empty() && spans.back().end == span.end;
    if (!empty || !touches) spans.push_back({span.begin, empty ? span.begin : span.end});
    at = span.end;
    if (empty) at += at < text.size() ? character_length(text[at]) : 1;
  }
  return spans;
}

}  // namespace attar::tokenize
