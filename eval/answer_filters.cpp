#include "eval/answer_filters.h"

#include <algorithm>

namespace attar::eval {
namespace {

constexpr std::string_view kMarker = "#### ";
constexpr std::string_view kNumberCharacters = "0123456789.,";
constexpr std::string_view kMoneyCharacters = "$0123456789.,";
constexpr std::string_view kDigits = "0123456789";

// Bytes at the start of `text` that are in `set`.
std::size_t run_of(std::string_view text, std::string_view set) {
  return std::min(text.find_first_not_of(set), text.size());
}

// Bytes that `-?[set]{least,}` matches at the start of `text`, 0 if it does not. The minus is in
// none of the sets, so there is nothing to take back.
std::size_t match(std::string_view text, std::string_view set, std::size_t least) {
  const std::size_t sign = text.starts_with('-') ? 1 : 0;
  const std::size_t length = run_of(text.substr(sign), set);
  return length >= least ? sign + length : 0;
}

std::string normalized(std::string_view text) {
  std::string result;
  for (const char c : text) {
    if (c != ',' && c != '$') result.push_back(c);
  }
  if (const std::size_t marker = result.rfind(kMarker); marker != std::string::npos) {
    result.erase(0, marker + kMarker.size());
  }
  // `$` also stands before a last line feed.
  if (result.ends_with('.')) {
    result.pop_back();
  } else if (result.ends_with(".\n")) {
    result.erase(result.size() - 2, 1);
  }
  // Extracted answers are ASCII, so only ASCII letters of the other side can come to be equal.
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

}  // namespace

std::string extract_strict(std::string_view text) {
  for (std::size_t at = 0; (at = text.find(kMarker, at)) != std::string_view::npos; ++at) {
    const std::string_view rest = text.substr(at + kMarker.size());
    if (const std::size_t length = match(rest, kNumberCharacters, 1); length > 0) {
      return std::string(rest.substr(0, length));
    }
  }
  return std::string(kNoAnswer);
}

std::string extract_flexible(std::string_view text) {
  std::string_view last;
  for (std::size_t at = 0; at < text.size();) {
    const std::string_view rest = text.substr(at);
    std::size_t length = match(rest, kMoneyCharacters, 2);
    if (length == 0) length = match(rest, kDigits, 1);
    if (length > 0) last = rest.substr(0, length);
    at += std::max<std::size_t>(length, 1);
  }
  return std::string(last.empty() ? kNoAnswer : last);
}

bool exact_match(std::string_view answer, std::string_view right_answer) {
  return normalized(answer) == normalized(right_answer);
}

}  // namespace attar::eval
