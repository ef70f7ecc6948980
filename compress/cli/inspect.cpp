#include "compress/cli/command.h"
#include "compress/core/errors.h"
#include "compress/formats/file_source.h"
#include "compress/formats/model_file.h"
#include "compress/pipeline/model_listing.h"
#include "compress/pipeline/plan.h"
#include "eval/table.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string model;
  bool tensors = false;
  bool hash = false;
};

using nlohmann::ordered_json;

ordered_json describe(const Options& options) {
  const auto source = open_model(options.model);
  ordered_json found = {{"path", source->path()},
                        {"format", source->format()},
                        {"parameters", parameter_count(source->config())},
                        {"bytes", source->file_bytes()}};
  found.update(config_listing(source->config()));
  if (options.hash) found["sha256"] = source->sha256();
  const bool has = has_tokenizer(options.model);
  found["tokenizer"] = has;
  if (has) {
    try {
      const auto tokenizer = load_model_tokenizer(options.model);
      found["tokens"] = tokenizer->vocabulary_size();
      found["chat_template"] = tokenizer->chat_template().has_value();
    } catch (const BadInput& error) {  // the rest can be told all the same
      found["tokenizer_error"] = error.what();
    }
  }
  if (const auto* file = dynamic_cast<const FileSource*>(source.get())) {
    if (const auto left_out = file->left_out(); !left_out.empty()) found["left_out"] = left_out;
  }
  found["tensors"] = tensor_listing(*source);
  return found;
}

void inspect(const Options& options) {
  const ordered_json found = describe(options);
  if (options.common.json()) return print_json(found);
  std::string text;
  for (const auto& [key, value] : found.items()) {
    if (key == "tensors") continue;
    text += key + std::string(key.size() < 16 ? 16 - key.size() : 1, ' ') +
            (value.is_string() ? value.get<std::string>() : value.dump()) + "\n";
  }
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> types;
  for (const auto& tensor : found.at("tensors")) {
    auto& [count, bytes] = types[tensor.at("type").get<std::string>()];
    ++count;
    bytes += tensor.at("bytes").get<std::int64_t>();
    if (!options.tensors) continue;
    text += tensor.at("layer").get<std::string>() + "  " + tensor.at("shape").dump() + "  " +
            tensor.at("type").get<std::string>() + "  " + tensor.at("bytes").dump() + "\n";
  }
  for (const auto& [type, total] : types) {
    text += type + ": " + std::to_string(total.first) + " matrices, " +
            readable_bytes(static_cast<std::uint64_t>(total.second)) + "\n";
  }
  print(text);
}

}  // namespace

void add_inspect(CLI::App& app) {
  auto* command = app.add_subcommand("inspect", "Say what a model file holds");
  const auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_flag("--tensors", options->tensors, "List every matrix");
  command->add_flag("--hash", options->hash, "Also the SHA-256 of weights and configuration");
  add_common(*command, options->common);
  command->callback([options] { inspect(*options); });
}

}  // namespace attar::cli
