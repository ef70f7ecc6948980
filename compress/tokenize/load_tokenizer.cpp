// Which file of a folder is the tokenizer, and which say the special ids.
#include <charconv>
#include <filesystem>
#include <string>

#include "compress/core/errors.h"
#include "compress/io/json.h"
#include "compress/io/mapped_file.h"
#include "compress/tokenize/sentencepiece.h"
#include "compress/tokenize/tokenizer_json.h"
#include "compress/tokenize/trim.h"

namespace attar::tokenize {
namespace {

namespace fs = std::filesystem;

nlohmann::json load_if_there(const fs::path& path) {
  return fs::exists(path) ? io::load_json(path) : nlohmann::json::object();
}

std::string read_text(const fs::path& path) {
  const auto file = io::MappedFile::open(path);
  return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

// "</s>" or {"content": "</s>", ...} under `name`_token of tokenizer_config.json; else
// `name`_token_id (a number, or a list whose first counts) of generation_config.json, then of
// config.json.
class SpecialIdReader {
 public:
  SpecialIdReader(const fs::path& folder, KeptTokens kept)
      : folder_(folder),
        kept_(kept),
        tokenizer_(load_if_there(folder / "tokenizer_config.json")),
        generation_(load_if_there(folder / "generation_config.json")),
        model_(load_if_there(folder / "config.json")) {}

  template <class IdOf>
  std::optional<TokenId> read(const std::string& name, IdOf id_of) const {
    const Node config{tokenizer_, (folder_ / "tokenizer_config.json").string() + ":"};
    if (config.has(name + "_token")) {
      const Node token = config[name + "_token"];
      const std::string& text =
          token.value.is_object() ? token["content"].string() : token.string();
      if (const auto id = id_of(text)) return id;
    }
    for (const auto& [json, file] : kFiles) {
      const Node node{this->*json, (folder_ / file).string()};
      if (!node.has(name + "_token_id")) continue;
      const Node id = node[name + "_token_id"];
      if (id.value.is_array() && id.value.empty()) continue;
      const Node first = id.value.is_array() ? id[0] : id;
      if (first.value == -1) continue;  // how some writers say none
      const auto place = place_of(kept_, first.integer());
      return place ? std::optional(static_cast<TokenId>(*place)) : std::nullopt;
    }
    return std::nullopt;
  }

  // All of eos_token_id of generation_config.json, else of config.json.
  std::vector<TokenId> ends() const {
    std::vector<TokenId> found;
    for (const auto& [json, file] : kFiles) {
      const Node node{this->*json, (folder_ / file).string()};
      if (!node.has("eos_token_id")) continue;
      const Node ids = node["eos_token_id"];
      const std::size_t count = ids.value.is_array() ? ids.value.size() : 1;
      for (std::size_t i = 0; i < count; ++i) {
        const Node id = ids.value.is_array() ? ids[i] : ids;
        if (id.value == -1) continue;  // how some writers say none
        if (const auto place = place_of(kept_, id.integer())) {
          found.push_back(static_cast<TokenId>(*place));
        }
      }
      break;
    }
    return found;
  }

  // chat_template.jinja, else tokenizer_config.json: a string, or a list of named ones.
  std::optional<std::string> chat_template() const {
    const fs::path file = folder_ / "chat_template.jinja";
    if (fs::exists(file)) return read_text(file);
    const Node config{tokenizer_, (folder_ / "tokenizer_config.json").string() + ":"};
    if (!config.has("chat_template")) return std::nullopt;
    const Node node = config["chat_template"];
    if (node.value.is_string()) return node.string();
    for (std::size_t i = 0; i < node.array().value.size(); ++i) {
      if (node[i]["name"].string() == "default") return node[i]["template"].string();
    }
    return std::nullopt;
  }

  template <class IdOf>
  void fill(SpecialIds& special, IdOf id_of) const {
    if (const auto id = read("bos", id_of)) special.bos = id;
    if (const auto id = read("eos", id_of)) special.eos = id;
    special.more_ends = ends();
    if (const auto id = read("unk", id_of)) special.unknown = id;
    if (const auto id = read("pad", id_of)) special.padding = id;
    special.chat_template = chat_template();
  }

 private:
  using Self = SpecialIdReader;

  fs::path folder_;
  KeptTokens kept_;
  nlohmann::json tokenizer_, generation_, model_;
  // Those with `name`_token_id, the first that has it counts.
  static constexpr std::pair<nlohmann::json Self::*, const char*> kFiles[] = {
      {&Self::generation_, "generation_config.json:"}, {&Self::model_, "config.json:"}};
};

PipelineParts load_json_parts(const fs::path& path, KeptTokens kept) {
  nlohmann::json file = io::load_json(path);
  if (!kept.empty()) file = trim_tokenizer_json(file, kept, path.string());
  return read_tokenizer_json(file, path.string());
}

SentencePieceModel load_sentencepiece(const fs::path& path, KeptTokens kept) {
  if (kept.empty()) return read_sentencepiece(io::MappedFile::open(path)->bytes(), path.string());
  const std::string trimmed = trim_sentencepiece(read_text(path), kept, path.string());
  return read_sentencepiece(std::as_bytes(std::span(trimmed)), path.string());
}

// Tokens beside the sentencepiece model have rules of their own (what a space before or behind them
// is), which its file does not tell.
void refuse_added_tokens(const fs::path& folder, std::int64_t pieces) {
  const auto refuse = [&](const std::string& token, std::int64_t id, const char* file) {
    require(id < pieces, (folder / file).string(), "has '", token, "' (id ", id,
            "), which tokenizer.model has not; write a tokenizer.json that holds both, with "
            "transformers: AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)");
  };
  const nlohmann::json added = load_if_there(folder / "added_tokens.json");
  for (const auto& [token, id] : added.items()) {
    if (id.is_number_integer()) refuse(token, id.get<std::int64_t>(), "added_tokens.json");
  }
  const nlohmann::json config = load_if_there(folder / "tokenizer_config.json");
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || !decoder->is_object()) return;
  for (const auto& [id, token] : decoder->items()) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), number);
    if (error != std::errc()) continue;
    const auto content = token.is_object() ? token.find("content") : token.end();
    const bool named = content != token.end() && content->is_string();
    refuse(named ? content->get<std::string>() : id, number, "tokenizer_config.json");
  }
}

std::shared_ptr<const Tokenizer> load_folder(const fs::path& folder, KeptTokens kept) {
  const fs::path json = folder / "tokenizer.json";
  const fs::path proto = folder / "tokenizer.model";
  if (fs::exists(json)) {
    PipelineParts parts = load_json_parts(json, kept);
    SpecialIdReader(folder, kept).fill(parts.special, [&](const std::string& token) {
      return parts.vocabulary.id_of(token);
    });
    return make_pipeline(std::move(parts));
  }
  require(fs::exists(proto), folder.string(), "has neither tokenizer.json nor tokenizer.model");
  SentencePieceModel model = load_sentencepiece(proto, kept);
  if (kept.empty()) refuse_added_tokens(folder, std::ssize(model.pieces));
  SpecialIdReader(folder, kept)
      .fill(model.special, [&](const std::string& token) -> std::optional<TokenId> {
        for (std::size_t id = 0; id < model.pieces.size(); ++id) {
          if (model.pieces[id].text == token) return id;
        }
        return std::nullopt;
      });
  return make_sentencepiece(std::move(model), proto.string());
}

}  // namespace
}  // namespace attar::tokenize

namespace attar {

std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file,
                                                KeptTokens kept) {
  using namespace tokenize;
  require<IoError>(fs::exists(folder_or_file), folder_or_file.string(),
                   "no such file or folder; give a model folder, a tokenizer.json or a *.model");
  if (fs::is_directory(folder_or_file)) return load_folder(folder_or_file, kept);
  if (folder_or_file.extension() == ".json") {
    return make_pipeline(load_json_parts(folder_or_file, kept));
  }
  require(folder_or_file.extension() == ".model", folder_or_file.string(),
          "is neither a folder, a *.json nor a sentencepiece *.model; for a GGUF file use "
          "tokenizer_from_gguf");
  return make_sentencepiece(load_sentencepiece(folder_or_file, kept), folder_or_file.string());
}

}  // namespace attar
