#include "compress/pipeline/chat.h"

#include <string_view>

#include "compress/core/errors.h"

namespace attar {
namespace {

constexpr std::string_view kStart = "<|im_start|>";
constexpr std::string_view kEnd = "<|im_end|>";

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != text.npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
}

// The system message that the template puts in front when there is none: the first literal between
// "<|im_start|>system\n" and "<|im_end|>" inside of the template.
std::string default_system(const std::string& chat_template) {
  std::string text = chat_template;
  replace_all(text, "\\n", "\n");
  const std::string opening = std::string(kStart) + "system\n";
  for (std::size_t at = 0; (at = text.find(opening, at)) != text.npos;) {
    at += opening.size();
    const std::string message = text.substr(at, text.find(kEnd, at) - at);
    if (message.find_first_of("{}'\"") == message.npos) return message;
  }
  return "";
}

bool is_chatml(const std::string& text) {
  std::string flat;
  for (const char c : text) {
    if (c != ' ' && c != '\n') flat += c;
  }
  const bool role = flat.find("'<|im_start|>'+message['role']") != flat.npos ||
                    flat.find("\"<|im_start|>\"+message[\"role\"]") != flat.npos ||
                    flat.find("'<|im_start|>'+message.role") != flat.npos;
  return role && flat.find("<|im_end|>") != flat.npos &&
         flat.find("<|im_start|>assistant") != flat.npos;
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) {
    text.remove_prefix(1);
  }
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) {
    text.remove_suffix(1);
  }
  return text;
}

}  // namespace

std::string chat_prompt(const Tokenizer& tokenizer, const std::string& question) {
  const std::optional<std::string> chat_template = tokenizer.chat_template();
  require(chat_template.has_value(), "chat",
          "the model's tokenizer has no chat template; it is no "
          "chat model: use a plain prompt");
  require(is_chatml(*chat_template), "chat",
          "the model's chat template is not ChatML "
          "(<|im_start|>role ... <|im_end|>), the only one that attar renders; write the turns "
          "yourself in a plain prompt");
  std::string prompt;
  if (const std::string system = default_system(*chat_template); !system.empty()) {
    prompt += std::string(kStart) + "system\n" + system + std::string(kEnd) + "\n";
  }
  prompt += std::string(kStart) + "user\n" + question + std::string(kEnd) + "\n";
  return prompt + std::string(kStart) + "assistant\n";
}

std::string answer_chat(LanguageModel& model, const std::string& question,
                        std::int64_t max_new_tokens) {
  const Tokenizer& tokenizer = model.tokenizer();
  const std::vector<TokenId> prompt = tokenizer.encode(chat_prompt(tokenizer, question));
  std::vector<TokenId> ends = tokenizer.ends();
  if (const auto end = tokenizer.id_of(kEnd)) ends.push_back(*end);
  const auto room = model.max_length() - static_cast<std::int64_t>(prompt.size());
  require<UsageError>(room > 0, "chat", "the question has ", prompt.size(),
                      " tokens, the model holds ", model.max_length(), "; shorten it");
  const Generation answer = model.generate_greedy(prompt, std::min(room, max_new_tokens), ends,
                                                  [](std::span<const TokenId>) { return false; });
  return std::string(trim(tokenizer.decode(answer.ids)));
}

}  // namespace attar
