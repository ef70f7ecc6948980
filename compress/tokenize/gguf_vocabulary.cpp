// The vocabulary in a GGUF file -> a Tokenizer: tokenizer.ggml.model "gpt2" through the pipeline,
// "llama" as a sentencepiece model.
#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>

#include "compress/core/errors.h"
#include "compress/io/gguf_file.h"
#include "compress/tokenize/byte_level.h"
#include "compress/tokenize/gguf_pre.h"
#include "compress/tokenize/pipeline.h"
#include "compress/tokenize/sentencepiece.h"
#include "compress/tokenize/trim.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

using io::GgufFile;

std::string where_in(const GgufFile& file, std::string_view key) {
  return file.path().string() + ": tokenizer." + std::string(key);
}

std::optional<TokenId> read_id(const GgufFile& file, const std::string& name, std::size_t count,
                               KeptTokens kept) {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  if (!file.has(key)) return std::nullopt;
  const std::uint32_t id = file.u32(key);
  if (id == 0xFFFFFFFFu) return std::nullopt;  // how some writers say none
  require(id < count, where_in(file, "ggml." + name + "_token_id"), "the id ", id,
          " is not in the vocabulary of ", count, " tokens");
  const auto place = place_of(kept, id);
  return place ? std::optional(static_cast<TokenId>(*place)) : std::nullopt;
}

SpecialIds read_special(const GgufFile& file, KeptTokens kept) {
  const std::size_t count = file.strings("tokenizer.ggml.tokens").size();
  SpecialIds special;
  special.bos = read_id(file, "bos", count, kept);
  special.eos = read_id(file, "eos", count, kept);
  for (const std::string name : {"eot", "eom"}) {
    // Some files name one that they do not have; then nothing else ends a turn.
    const std::string key = "tokenizer.ggml." + name + "_token_id";
    if (!file.has(key) || file.u32(key) >= count) continue;
    if (const auto id = read_id(file, name, count, kept)) special.more_ends.push_back(*id);
  }
  special.unknown = read_id(file, "unknown", count, kept);
  special.padding = read_id(file, "padding", count, kept);
  if (file.has("tokenizer.chat_template")) {
    special.chat_template = std::string(file.string("tokenizer.chat_template"));
  }
  return special;
}

std::vector<PieceType> piece_types(const GgufTokens& entries) {
  std::vector<PieceType> types(entries.tokens.size(), PieceType::normal);
  for (std::size_t i = 0; i < entries.types.size(); ++i) {
    types[i] = static_cast<PieceType>(entries.types[i]);
  }
  return types;
}

// "a b": the first part may itself start with spaces, so the cut is the first space behind byte 0.
std::pair<std::string_view, std::string_view> parts_of(std::string_view merge,
                                                       std::string_view where) {
  const std::size_t space = merge.find(' ', 1);
  require(space != std::string_view::npos, where, "merge '", merge,
          "' must be two tokens and one space");
  return {merge.substr(0, space), merge.substr(space + 1)};
}

std::shared_ptr<const Tokenizer> byte_level_tokenizer(const GgufFile& file, KeptTokens kept) {
  const std::string where = where_in(file, "ggml.pre");
  require(file.has("tokenizer.ggml.pre"), where,
          "is missing, so the words to merge within are unknown; convert the model again, or use "
          "its tokenizer.json");
  const GgufPre pre = gguf_pre(file.string("tokenizer.ggml.pre"), where);
  const GgufTokens entries = gguf_tokens(file, kept);
  const auto& tokens = entries.tokens;
  const std::vector<PieceType> types = piece_types(entries);
  PipelineParts parts;
  Vocabulary vocabulary;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    vocabulary.add(tokens[i], id, where_in(file, "ggml.tokens"));
    const bool special = types[i] == PieceType::control || types[i] == PieceType::unknown;
    if (special || types[i] == PieceType::user_defined) {
      require_well_formed(tokens[i], id, where_in(file, "ggml.tokens"));
      parts.added.push_back({.content = std::string(tokens[i]), .id = id, .special = special});
      // Stored as it stands in text; spelled like the others, so that the decoder gives it back.
      append_byte_level(tokens[i], parts.spelling[id]);
    }
  }
  parts.special = read_special(file, kept);
  if (file.boolean_or("tokenizer.ggml.add_bos_token", pre.add_bos) && parts.special.bos) {
    parts.surrounding.before = {*parts.special.bos};
  }
  if (file.boolean_or("tokenizer.ggml.add_eos_token", false) && parts.special.eos) {
    parts.surrounding.after = {*parts.special.eos};
  }
  parts.vocabulary = vocabulary;
  BpeOptions options;
  options.ignore_merges = pre.ignore_merges;
  Bpe::Pairs merges;
  for (const std::string_view merge : entries.merges) {
    merges.push_back(parts_of(merge, where_in(file, "ggml.merges")));
  }
  parts.model = std::make_shared<Bpe>(std::make_shared<const Vocabulary>(std::move(vocabulary)),
                                      merges, options, where_in(file, "ggml.merges"));
  const nlohmann::json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  nlohmann::json steps = nlohmann::json::array();
  for (const std::string_view expression : pre.expressions) {
    steps.push_back(
        {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}});
  }
  steps.push_back(byte_level);
  const nlohmann::json sequence = {{"type", "Sequence"}, {"pretokenizers", steps}};
  parts.pre_tokenizer = read_pre_tokenizer({sequence, where});
  parts.decoder = read_decoder({byte_level, where});
  return make_pipeline(std::move(parts));
}

std::shared_ptr<const Tokenizer> scored_tokenizer(const GgufFile& file, KeptTokens kept) {
  const std::string where = where_in(file, "ggml.tokens");
  require(file.has("tokenizer.ggml.scores"), where_in(file, "ggml.scores"), "is missing");
  const GgufTokens entries = gguf_tokens(file, kept);
  const std::vector<PieceType> types = piece_types(entries);
  SentencePieceModel model;
  model.byte_fallback = true;
  for (std::size_t i = 0; i < entries.tokens.size(); ++i) {
    model.pieces.push_back({std::string(entries.tokens[i]), entries.scores[i], types[i]});
  }
  model.special = read_special(file, kept);
  model.add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", true);
  model.add_eos = file.boolean_or("tokenizer.ggml.add_eos_token", false);
  model.add_dummy_prefix = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  model.control_in_text = true;
  return make_sentencepiece(std::move(model), where);
}

}  // namespace
}  // namespace attar::tokenize

namespace attar {

GgufTokens gguf_tokens(const io::GgufFile& file, KeptTokens kept) {
  using tokenize::where_in;
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  const auto array = [&](const char* name, auto read) {
    const std::string key = std::string("tokenizer.ggml.") + name;
    auto values = file.has(key) ? read(key) : decltype(read(key))();
    require(values.empty() || values.size() == tokens.size(), where_in(file, key.substr(10)),
            "has ", values.size(), " entries for ", tokens.size(), " tokens");
    return values;
  };
  const auto scores = array("scores", [&](const std::string& key) { return file.f32s(key); });
  const auto types = array("token_type", [&](const std::string& key) { return file.i32s(key); });
  for (std::size_t id = 0; id < types.size(); ++id) {
    require(types[id] >= 1 && types[id] <= 6, where_in(file, "ggml.token_type"), "token ", id,
            " has type ", types[id], ", known are 1 to 6");
  }
  GgufTokens left;
  std::unordered_set<std::string_view> spellings;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    if (!place_of(kept, static_cast<std::int64_t>(id))) continue;
    left.tokens.push_back(tokens[id]);
    spellings.insert(tokens[id]);
    if (!scores.empty()) left.scores.push_back(scores[id]);
    if (!types.empty()) left.types.push_back(types[id]);
  }
  if (!file.has("tokenizer.ggml.merges")) return left;
  for (const std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    const auto [a, b] = tokenize::parts_of(merge, where_in(file, "ggml.merges"));
    const bool stays = kept.empty() || (spellings.contains(a) && spellings.contains(b) &&
                                        spellings.contains(std::string(a) + std::string(b)));
    if (stays) left.merges.push_back(merge);
  }
  return left;
}

std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const io::GgufFile& file, KeptTokens kept) {
  const std::string where = file.path().string() + ": tokenizer.ggml.model";
  require(file.has("tokenizer.ggml.model"), where,
          "is missing: the file has no vocabulary; give the tokenizer of the original model");
  const std::string_view model = file.string("tokenizer.ggml.model");
  if (model == "gpt2") return tokenize::byte_level_tokenizer(file, kept);
  if (model == "llama") return tokenize::scored_tokenizer(file, kept);
  throw BadInput(message(where, "unknown tokenizer model '", model,
                         "'; known are gpt2 and llama: use the tokenizer.json of the model"));
}

}  // namespace attar
