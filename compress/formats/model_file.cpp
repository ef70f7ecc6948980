#include "compress/formats/model_file.h"

#include <algorithm>

#include "compress/core/errors.h"
#include "compress/formats/adapter.h"
#include "compress/formats/gguf_model.h"
#include "compress/formats/huggingface.h"
#include "compress/formats/initial_source.h"
#include "compress/io/gguf_file.h"
#include "compress/io/sharded_safetensors.h"

namespace attar {
namespace {

namespace fs = std::filesystem;

bool is_gguf(const fs::path& path) { return path.extension() == ".gguf"; }

void require_exists(const fs::path& path) {
  std::error_code error;
  const bool there = fs::exists(path, error);
  require<IoError>(!error, path.string(), "cannot be read: ", error.message());
  require<IoError>(there, path.string(),
                   "there is no such file or folder; give a Hugging Face "
                   "folder (config.json, *.safetensors) or a .gguf file");
}

// A model without weights yet.
bool is_initial(const fs::path& folder) {
  return fs::exists(folder / "config.json") && fs::exists(folder / kInitialiseFile) &&
         !io::ShardedSafetensors::present(folder);
}

// Terms beside a model that stands elsewhere.
bool is_adapter(const fs::path& folder) {
  return fs::exists(folder / kAdapterConfig) && !fs::exists(folder / "config.json");
}

bool has_file(const fs::path& folder, std::string_view end) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().ends_with(end)) return true;
  }
  return false;
}

void require_weights(const fs::path& folder) {
  const std::string where = folder.string();
  if (!fs::exists(folder / "config.json")) {
    require(!has_file(folder, ".gguf"), where, "holds *.gguf files; name one of them");
    throw BadInput(
        message(where, "has no config.json; give a Hugging Face folder or a .gguf file"));
  }
  if (io::ShardedSafetensors::present(folder)) return;
  require(!has_file(folder, ".bin"), where,
          "has its weights as pickled PyTorch files (*.bin), "
          "which can run code when read; convert them to safetensors with "
          "AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(OUT)");
  throw BadInput(message(where,
                         "has no weights: neither model.safetensors nor "
                         "model.safetensors.index.json is there; a model that is to be trained "
                         "from nothing has an ",
                         kInitialiseFile, " in their place"));
}

}  // namespace

std::shared_ptr<const ModelSource> open_model(const fs::path& path) {
  require_exists(path);
  if (fs::is_directory(path)) {
    if (is_initial(path)) return open_initial(path);
    if (is_adapter(path)) return open_adapter(path);
    require_weights(path);
    return open_huggingface(path);
  }
  require(is_gguf(path), path.string(),
          "is neither a folder nor a .gguf file; give a Hugging Face "
          "folder or a .gguf file");
  return open_gguf(path);
}

bool has_tokenizer(const fs::path& model) {
  if (is_gguf(model)) {
    const io::GgufFile file = io::GgufFile::open(model);
    return file.string_or("tokenizer.ggml.model", "none") != "none";
  }
  if (is_adapter(model)) return has_tokenizer(adapter_base(model));
  return fs::exists(model / "tokenizer.json") || fs::exists(model / "tokenizer.model");
}

std::shared_ptr<const Tokenizer> load_model_tokenizer(const fs::path& model, KeptTokens kept) {
  require_exists(model);
  if (is_adapter(model)) return load_model_tokenizer(adapter_base(model), kept);
  require(has_tokenizer(model), model.string(), "has no tokenizer: ",
          is_gguf(model) ? "tokenizer.ggml.model is absent or 'none'"
                         : "neither tokenizer.json nor tokenizer.model is there");
  return is_gguf(model) ? tokenizer_from_gguf(io::GgufFile::open(model), kept)
                        : load_tokenizer(model, kept);
}

std::shared_ptr<const Tokenizer> tokenizer_of(const Model& model) {
  return load_model_tokenizer(model.source().path(), model.source_tokens());
}

std::vector<fs::path> companion_files(const fs::path& model) {
  if (is_adapter(model)) return companion_files(adapter_base(model));
  constexpr std::array<std::string_view, 14> kNames = {"LICENSE",
                                                       "LICENSE.md",
                                                       "LICENSE.txt",
                                                       "NOTICE",
                                                       "USE_POLICY.md",
                                                       "added_tokens.json",
                                                       "chat_template.jinja",
                                                       "chat_template.json",
                                                       "generation_config.json",
                                                       "merges.txt",
                                                       "special_tokens_map.json",
                                                       "tokenizer.json",
                                                       "tokenizer.model",
                                                       "tokenizer_config.json"};
  std::vector<fs::path> files;
  for (const std::string_view name : kNames) {
    if (fs::is_regular_file(model / name)) files.push_back(model / name);
  }
  if (fs::is_regular_file(model / "vocab.json")) files.push_back(model / "vocab.json");
  return files;
}

}  // namespace attar
