// WikiText at the level of pages: the likelihood of each detokenized page, counted by the words and
// bytes of the page as it stood (not comparable with perplexity over
// one stream of tokens, perplexity.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace attar::eval {

// Cuts a whole split at lines that look like a heading of the first level, as the dataset's own
// script does: once "= = =" and "= =" are closed up, the stripped line starts with "= " and ends
// with " =". Some lines of prose look like that and are cut at, too. Parts of whitespace alone are
// dropped, except the last.
std::vector<std::string> cut_pages(std::string_view text);

// Undoes WikiText's tokenization (" @-@ ", " , ", "( x )" ...), rule by rule as the harness does,
// including those rules of it that never match.
std::string detokenize(std::string_view page);

// Opens "wikitext"; nothing for another name. Reads wikitext2_test.raw.txt; options.max_length
// makes the rolling windows shorter than the model allows.
std::optional<Task> open_wikitext(std::string_view name, const TaskOptions& options);

}  // namespace attar::eval
