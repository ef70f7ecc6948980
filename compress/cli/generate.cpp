#include "compress/cli/runtime_option.h"
#include "compress/cli/signals.h"
#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/pipeline/chat.h"
#include "eval/encoding.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string model, prompt, chat, runtime = "dense";
  std::int64_t tokens = 128, kv_bits = 32;
};

void generate(const Options& options) {
  require<UsageError>(options.prompt.empty() != options.chat.empty(), "generate",
                      "give one of --prompt and --chat");
  use_threads(options.common);
  RunContext context;
  context.stop = &stop_flag();
  const Model model(open_model(options.model));
  const auto tokenizer = load_model_tokenizer(options.model);
  const Engine engine = engine_of(options.runtime, options.kv_bits);
  const auto language =
      stoppable(engine.make_language_model(model, tokenizer, engine.cache), context);
  const bool is_chat = !options.chat.empty();
  const std::vector<TokenId> prompt = is_chat
                                          ? tokenizer->encode(chat_prompt(*tokenizer, options.chat))
                                          : eval::encode_prompt(*tokenizer, options.prompt);
  std::vector<TokenId> ends = tokenizer->ends();
  if (const auto turn = tokenizer->id_of("<|im_end|>"); is_chat && turn) ends.push_back(*turn);
  require<UsageError>(!prompt.empty(), "generate", "the prompt has no token; give some text");
  const auto room = language->max_length() - static_cast<std::int64_t>(prompt.size());
  require<UsageError>(room > 0, "generate", "the prompt has ", prompt.size(),
                      " tokens, the model "
                      "holds ",
                      language->max_length(), "; shorten it");
  const Generation answer = language->generate_greedy(
      prompt, std::min(room, options.tokens), ends, [](std::span<const TokenId>) { return false; });
  const std::string text = tokenizer->decode(answer.ids);
  if (!options.common.json()) return print(text + "\n");
  print_json(nlohmann::ordered_json{{"prompt_ids", prompt}, {"ids", answer.ids}, {"text", text}});
}

}  // namespace

void add_generate(CLI::App& app) {
  auto* command = app.add_subcommand("generate", "Continue a text or answer a question, greedily");
  const auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--prompt", options->prompt, "Text to continue");
  command->add_option("--chat", options->chat, "Question, put through the chat template");
  command->add_option("--tokens", options->tokens, "At most so many new tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  add_runtime(*command, options->runtime);
  add_kv_bits(*command, options->kv_bits);
  add_common(*command, options->common);
  command->callback([options] { generate(*options); });
}

}  // namespace attar::cli
