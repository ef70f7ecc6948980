// A question put to a chat model. Templates are programs (Jinja); attar does not run them but
// recognises ChatML, with the default system message that the template itself names.
#pragma once

#include <cstdint>
#include <string>

#include "compress/runtime/language_model.h"

namespace attar {

inline constexpr std::int64_t kChatTokens = 64;  // of an answer inside of a run

// The prompt of one user message up to where the assistant speaks. Throws BadInput for a tokenizer
// without a template or with one that is not ChatML.
std::string chat_prompt(const Tokenizer& tokenizer, const std::string& question);

// Greedy; ends at the end of the turn. The answer without its end mark and surrounding blanks.
std::string answer_chat(LanguageModel& model, const std::string& question,
                        std::int64_t max_new_tokens);

}  // namespace attar
