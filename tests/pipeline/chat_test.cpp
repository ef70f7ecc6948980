#include "compress/pipeline/chat.h"

#include <gmock/gmock.h>

#include "compress/core/errors.h"

namespace attar {
namespace {

// Only a template; no words.
class TemplateOnly final : public Tokenizer {
 public:
  explicit TemplateOnly(std::optional<std::string> text) : text_(std::move(text)) {}
  std::vector<TokenId> encode(std::string_view, bool) const override { return {}; }
  std::string decode(std::span<const TokenId>, bool) const override { return ""; }
  std::int64_t vocabulary_size() const override { return 0; }
  std::optional<TokenId> bos() const override { return {}; }
  std::optional<TokenId> eos() const override { return {}; }
  std::optional<TokenId> unknown() const override { return {}; }
  std::optional<TokenId> padding() const override { return {}; }
  bool adds_bos() const override { return false; }
  std::optional<TokenId> id_of(std::string_view) const override { return {}; }
  std::string_view token(TokenId) const override { return ""; }
  bool is_special(TokenId) const override { return false; }
  std::optional<std::string> chat_template() const override { return text_; }

 private:
  std::optional<std::string> text_;
};

// SmolLM2-Instruct's template, as its GGUF holds it.
constexpr const char* kSmolLm =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ "
    "'<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}";

TEST(Chat, RendersSmolLmAsTransformersDoes) {
  EXPECT_EQ(chat_prompt(TemplateOnly(kSmolLm), "Hi?"),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n<|im_start|>assistant\n");
}

// Where tools are there first, as in Qwen2.5's: the first opening is no message.
TEST(Chat, FindsTheDefaultMessageBehindTheBranchOfTools) {
  constexpr const char* kTools =
      "{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0]['role'] == 'system' %}{{- "
      "messages[0]['content'] }}{%- else %}{{- 'You are Q.' }}{%- endif %}{{- '<|im_end|>\\n' }}"
      "{%- else %}{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\\n' + "
      "messages[0]['content'] + '<|im_end|>\\n' }}{%- else %}{{- '<|im_start|>system\\nYou are Q."
      "<|im_end|>\\n' }}{%- endif %}{%- endif %}{%- for message in messages %}{{- '<|im_start|>' + "
      "message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endfor %}"
      "{{- '<|im_start|>assistant\\n' }}";
  EXPECT_EQ(chat_prompt(TemplateOnly(kTools), "Hi?"),
            "<|im_start|>system\nYou are Q.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n"
            "<|im_start|>assistant\n");
}

TEST(Chat, RefusesTemplatesThatItDoesNotKnow) {
  EXPECT_THROW(chat_prompt(TemplateOnly(std::nullopt), "Hi?"), BadInput);
  EXPECT_THROW(chat_prompt(TemplateOnly("[INST] {{ messages[0].content }} [/INST]"), "Hi?"),
               BadInput);
}

}  // namespace
}  // namespace attar
