// The vocabulary in a GGUF file -> a Tokenizer: tokenizer.ggml.model "gpt2" through the pipeline,
// "llama" as a sentencepiece model.
#include <nlohmann/json.hpp>
#include <string>

#include "compress/core/errors.h"
#include "compress/io/gguf_file.h"
#include "compress/tokenize/byte_level.h"
#include "compress/tokenize/gguf_pre.h"
#include "compress/tokenize/pipeline.h"
#include "compress/tokenize/sentencepiece.h"

namespace attar::tokenize {
namespace {

using io::GgufFile;

std::string where_in(const GgufFile& file, std::string_view key) {
  return file.path().string() + ": tokenizer." + std::string(key);
}

std::optional<TokenId> read_id(const GgufFile& file, const std::string& name, std::size_t count) {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  if (!file.has(key)) return std::nullopt;
  const std::uint32_t id = file.u32(key);
  if (id == 0xFFFFFFFFu) return std::nullopt;  // how some writers say none
  require(id < count, where_in(file, "ggml." + name + "_token_id"), "the id ", id,
          " is not in the vocabulary of ", count, " tokens");
  return static_cast<TokenId>(id);
}

SpecialIds read_special(const GgufFile& file, std::size_t count) {
  SpecialIds special;
  special.bos = read_id(file, "bos", count);
  special.eos = read_id(file, "eos", count);
  special.unknown = read_id(file, "unknown", count);
  special.padding = read_id(file, "padding", count);
  if (file.has("tokenizer.chat_template")) {
    special.chat_template = std::string(file.string("tokenizer.chat_template"));
  }
  return special;
}

std::vector<PieceType> read_types(const GgufFile& file, std::size_t count) {
  std::vector<PieceType> types(count, PieceType::normal);
  if (!file.has("tokenizer.ggml.token_type")) return types;
  const auto numbers = file.i32s("tokenizer.ggml.token_type");
  const std::string where = where_in(file, "ggml.token_type");
  require(numbers.size() == count, where, "has ", numbers.size(), " types for ", count, " tokens");
  for (std::size_t i = 0; i < count; ++i) {
    require(numbers[i] >= 1 && numbers[i] <= 6, where, "token ", i, " has type ", numbers[i],
            ", known are 1 to 6");
    types[i] = static_cast<PieceType>(numbers[i]);
  }
  return types;
}

// "a b": the first part may itself start with spaces, so the cut is the first space behind byte 0.
Bpe::Pairs read_merges(const GgufFile& file) {
  Bpe::Pairs merges;
  for (const std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    const std::size_t space = merge.find(' ', 1);
    require(space != std::string_view::npos, where_in(file, "ggml.merges"), "merge ", merges.size(),
            " ('", merge, "') must be two tokens and one space");
    merges.emplace_back(merge.substr(0, space), merge.substr(space + 1));
  }
  return merges;
}

std::shared_ptr<const Tokenizer> byte_level_tokenizer(const GgufFile& file) {
  const std::string where = where_in(file, "ggml.pre");
  require(file.has("tokenizer.ggml.pre"), where,
          "is missing, so the words to merge within are unknown; convert the model again, or use "
          "its tokenizer.json");
  const GgufPre pre = gguf_pre(file.string("tokenizer.ggml.pre"), where);
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  const auto types = read_types(file, tokens.size());
  PipelineParts parts;
  Vocabulary vocabulary;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    vocabulary.add(tokens[i], id, where_in(file, "ggml.tokens"));
    const bool special = types[i] == PieceType::control || types[i] == PieceType::unknown;
    if (special || types[i] == PieceType::user_defined) {
      parts.added.push_back({.content = std::string(tokens[i]), .id = id, .special = special});
      // Stored as it stands in text; spelled like the others, so that the decoder gives it back.
      append_byte_level(tokens[i], parts.spelling[id]);
    }
  }
  parts.special = read_special(file, tokens.size());
  if (file.boolean_or("tokenizer.ggml.add_bos_token", pre.add_bos) && parts.special.bos) {
    parts.surrounding.before = {*parts.special.bos};
  }
  if (file.boolean_or("tokenizer.ggml.add_eos_token", false) && parts.special.eos) {
    parts.surrounding.after = {*parts.special.eos};
  }
  parts.vocabulary = vocabulary;
  BpeOptions options;
  options.ignore_merges = pre.ignore_merges;
  parts.model = std::make_shared<Bpe>(std::make_shared<const Vocabulary>(std::move(vocabulary)),
                                      read_merges(file), options, where_in(file, "ggml.merges"));
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

std::shared_ptr<const Tokenizer> scored_tokenizer(const GgufFile& file) {
  const std::string where = where_in(file, "ggml.tokens");
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  const auto scores = file.f32s("tokenizer.ggml.scores");
  const auto types = read_types(file, tokens.size());
  require(scores.size() == tokens.size(), where_in(file, "ggml.scores"), "has ", scores.size(),
          " scores for ", tokens.size(), " tokens");
  SentencePieceModel model;
  model.byte_fallback = true;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    model.pieces.push_back({std::string(tokens[i]), scores[i], types[i]});
  }
  model.special = read_special(file, tokens.size());
  model.add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", true);
  model.add_eos = file.boolean_or("tokenizer.ggml.add_eos_token", false);
  model.add_dummy_prefix = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  model.control_in_text = true;
  return make_sentencepiece(std::move(model), where);
}

}  // namespace
}  // namespace attar::tokenize

namespace attar {

std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const io::GgufFile& file) {
  const std::string where = file.path().string() + ": tokenizer.ggml.model";
  require(file.has("tokenizer.ggml.model"), where,
          "is missing: the file has no vocabulary; give the tokenizer of the original model");
  const std::string_view model = file.string("tokenizer.ggml.model");
  if (model == "gpt2") return tokenize::byte_level_tokenizer(file);
  if (model == "llama") return tokenize::scored_tokenizer(file);
  throw BadInput(message(where, "unknown tokenizer model '", model,
                         "'; known are gpt2 and llama: use the tokenizer.json of the model"));
}

}  // namespace attar
