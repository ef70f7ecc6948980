// GSM8K: taking the answer out of generated text, and comparing it with the right one, by the
// regular expressions of lm-evaluation-harness (here matched by hand; digits are ASCII only).
#pragma once

#include <string>
#include <string_view>

namespace attar::eval {

inline constexpr std::string_view kNoAnswer = "[invalid]";

// Group 1 of the first `#### (-?[0-9.,]+)`, else kNoAnswer.
std::string extract_strict(std::string_view text);

// The last match of `(-?[$0-9.,]{2,})|(-?[0-9]+)`, else kNoAnswer. Punctuation alone matches too.
std::string extract_flexible(std::string_view text);

// Equal as strings after deleting, in this order, every ",", every "$", everything up to the last
// "#### " and a "." at the end, and lower-casing. "18.0" is not "18".
bool exact_match(std::string_view answer, std::string_view right_answer);

}  // namespace attar::eval
