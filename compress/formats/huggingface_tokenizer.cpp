#include "compress/formats/huggingface_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <unordered_map>

#include "compress/core/errors.h"
#include "compress/io/json.h"
#include "compress/tokenize/gguf_pre.h"
#include "compress/tokenize/sentencepiece.h"
#include "compress/tokenize/trim.h"

namespace attar {
namespace {

using Json = nlohmann::ordered_json;
using tokenize::PieceType;

// U+2581, how sentencepiece writes a space.
constexpr std::string_view kSpaceMark = "\xE2\x96\x81";

struct Vocabulary {
  std::span<const std::string_view> tokens;
  std::vector<PieceType> types;

  explicit Vocabulary(const io::GgufFile& file)
      : tokens(file.strings("tokenizer.ggml.tokens")), types(tokens.size(), PieceType::normal) {
    if (!file.has("tokenizer.ggml.token_type")) return;
    const std::vector<std::int32_t> stored = file.i32s("tokenizer.ggml.token_type");
    require(stored.size() == tokens.size(), file.path().string(),
            "tokenizer.ggml.token_type must have ", tokens.size(), " entries, got ", stored.size());
    for (std::size_t i = 0; i < stored.size(); ++i) types[i] = static_cast<PieceType>(stored[i]);
  }
};

std::optional<std::string> special_token(const io::GgufFile& file, const Vocabulary& vocabulary,
                                         const std::string& name) {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  if (!file.has(key) || file.u32(key) >= vocabulary.tokens.size()) return std::nullopt;
  return std::string(vocabulary.tokens[file.u32(key)]);
}

Json added_tokens(const Vocabulary& vocabulary) {
  Json added = Json::array();
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const PieceType type = vocabulary.types[i];
    const bool special = type == PieceType::control || type == PieceType::unknown;
    if (!special && type != PieceType::user_defined) continue;
    added.push_back({{"id", i},
                     {"content", vocabulary.tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", special}});
  }
  return added;
}

Json vocab_of(const Vocabulary& vocabulary) {
  Json vocab = Json::object();
  auto& entries = vocab.get_ref<Json::object_t&>();
  entries.reserve(vocabulary.tokens.size());
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    entries.Container::emplace_back(std::string(vocabulary.tokens[i]), Json(i));
  }
  return vocab;
}

Json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

// The library's own words for the common ones; else each expression as it is.
Json pre_tokenizer_of(std::string_view pre, const tokenize::GgufPre& known) {
  if (pre == "gpt-2") return byte_level(true);
  Json steps = Json::array();
  if (pre == "smollm") {
    steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    steps.push_back(byte_level(true));
  } else {
    for (const std::string_view expression : known.expressions) {
      steps.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", expression}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
    }
    steps.push_back(byte_level(false));
  }
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

Json bpe(Json vocab, Json merges, bool byte_fallback, bool ignore_merges) {
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", nullptr},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", byte_fallback},
          {"byte_fallback", byte_fallback},
          {"ignore_merges", ignore_merges},
          {"vocab", std::move(vocab)},
          {"merges", std::move(merges)}};
}

Json template_part(const char* kind, const std::string& id) {
  return {{kind, {{"id", id}, {"type_id", 0}}}};
}

// What stands around every text.
Json post_processor(const std::optional<std::string>& bos, std::int64_t bos_id,
                    const std::optional<std::string>& eos, std::int64_t eos_id) {
  if (!bos && !eos) return nullptr;
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  for (const char* sequence : {"A", "B"}) {
    if (bos) pair.push_back(template_part("SpecialToken", *bos));
    pair.push_back(template_part("Sequence", sequence));
    if (eos) pair.push_back(template_part("SpecialToken", *eos));
    if (*sequence == 'A') single = pair;
  }
  const auto declare = [&](const std::string& token, std::int64_t id) {
    special[token] = {{"id", token}, {"ids", Json::array({id})}, {"tokens", Json::array({token})}};
  };
  if (bos) declare(*bos, bos_id);
  if (eos) declare(*eos, eos_id);
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", special}};
}

Json surrounding(const io::GgufFile& file, const Vocabulary& vocabulary, bool bos_by_default) {
  const auto token_if = [&](const std::string& name, bool wanted) {
    return wanted ? special_token(file, vocabulary, name) : std::nullopt;
  };
  const bool add_bos = file.boolean_or("tokenizer.ggml.add_bos_token", bos_by_default);
  const bool add_eos = file.boolean_or("tokenizer.ggml.add_eos_token", false);
  return post_processor(token_if("bos", add_bos), file.u32_or("tokenizer.ggml.bos_token_id", 0),
                        token_if("eos", add_eos), file.u32_or("tokenizer.ggml.eos_token_id", 0));
}

Json byte_level_tokenizer(const io::GgufFile& file, const Vocabulary& vocabulary) {
  const std::string_view pre = file.string("tokenizer.ggml.pre");
  const tokenize::GgufPre known =
      tokenize::gguf_pre(pre, file.path().string() + ": tokenizer.ggml.pre");
  Json merges = Json::array();
  for (const std::string_view merge : file.strings("tokenizer.ggml.merges")) {
    const std::size_t space = merge.find(' ', 1);
    require(space != std::string_view::npos, file.path().string(), "tokenizer.ggml.merges: '",
            merge, "' must be two tokens and one space");
    merges.push_back({merge.substr(0, space), merge.substr(space + 1)});
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(vocabulary)},
          {"normalizer", nullptr},
          {"pre_tokenizer", pre_tokenizer_of(pre, known)},
          {"post_processor", surrounding(file, vocabulary, known.add_bos)},
          {"decoder", byte_level(true)},
          {"model", bpe(vocab_of(vocabulary), merges, false, known.ignore_merges)}};
}

struct ScoredMerge {
  float score;
  std::size_t left, right;  // ids
};

// Every way to put two pieces together to a third, the best score first: what sentencepiece does
// when it merges neighbours, told as ranks.
Json merges_from_scores(const Vocabulary& vocabulary, const std::vector<float>& scores) {
  std::unordered_map<std::string_view, std::size_t> ids;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] == PieceType::normal) ids.emplace(vocabulary.tokens[i], i);
  }
  std::vector<ScoredMerge> merges;
  for (std::size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] != PieceType::normal) continue;
    const std::string_view piece = vocabulary.tokens[i];
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      if ((static_cast<unsigned char>(piece[cut]) & 0xC0) == 0x80) continue;  // inside a character
      const auto left = ids.find(piece.substr(0, cut));
      const auto right = ids.find(piece.substr(cut));
      if (left != ids.end() && right != ids.end()) {
        merges.push_back({scores[i], left->second, right->second});
      }
    }
  }
  std::sort(merges.begin(), merges.end(), [](const ScoredMerge& a, const ScoredMerge& b) {
    return std::tuple(-a.score, a.left, a.right) < std::tuple(-b.score, b.left, b.right);
  });
  Json list = Json::array();
  for (const ScoredMerge& merge : merges) {
    list.push_back({vocabulary.tokens[merge.left], vocabulary.tokens[merge.right]});
  }
  return list;
}

Json scored_tokenizer(const io::GgufFile& file, const Vocabulary& vocabulary) {
  const std::vector<float> scores = file.f32s("tokenizer.ggml.scores");
  require(scores.size() == vocabulary.tokens.size(), file.path().string(),
          "tokenizer.ggml.scores must have ", vocabulary.tokens.size(), " entries, got ",
          scores.size());
  Json model = bpe(vocab_of(vocabulary), merges_from_scores(vocabulary, scores), true, false);
  if (const auto unknown = special_token(file, vocabulary, "unknown")) {
    model["unk_token"] = *unknown;
  }
  Json normalizers = Json::array();
  const bool prefix = file.boolean_or("tokenizer.ggml.add_space_prefix", true);
  if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
  normalizers.push_back(
      {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}});
  Json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  if (prefix) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(vocabulary)},
          {"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", surrounding(file, vocabulary, true)},
          {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
          {"model", model}};
}

Json tokenizer_config(const io::GgufFile& file, const Vocabulary& vocabulary) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
  constexpr std::array<std::pair<const char*, const char*>, 4> kTokens = {
      {{"bos", "bos_token"},
       {"eos", "eos_token"},
       {"unknown", "unk_token"},
       {"padding", "pad_token"}}};
  for (const auto& [name, key] : kTokens) {
    if (const auto token = special_token(file, vocabulary, name)) config[key] = *token;
  }
  config["clean_up_tokenization_spaces"] = false;
  const std::string context = std::string(file.string("general.architecture")) + ".context_length";
  if (file.has(context)) config["model_max_length"] = file.u32(context);
  if (file.has("tokenizer.chat_template")) {
    config["chat_template"] = file.string("tokenizer.chat_template");
  }
  return config;
}

// A vocabulary as such files hold it: by id.
Json by_id(const nlohmann::json& vocab) {
  std::vector<std::pair<std::int64_t, std::string>> tokens;
  for (const auto& [token, id] : vocab.items()) tokens.emplace_back(id.get<std::int64_t>(), token);
  std::sort(tokens.begin(), tokens.end());
  Json sorted = Json::object();
  auto& entries = sorted.get_ref<Json::object_t&>();
  for (auto& [id, token] : tokens) entries.Container::emplace_back(std::move(token), Json(id));
  return sorted;
}

void write_tokenizer_json(const std::filesystem::path& path, const nlohmann::json& tokenizer) {
  Json ordered(tokenizer);
  ordered["model"]["vocab"] = by_id(tokenizer.at("model").at("vocab"));
  io::write_json(path, ordered);
}

// {"token": id, ...}
nlohmann::json trim_vocab(const nlohmann::json& vocab, KeptTokens kept, std::string_view where) {
  require(vocab.is_object(), where, "must be an object of tokens and ids");
  nlohmann::json left = nlohmann::json::object();
  for (const auto& [token, id] : vocab.items()) {
    require(id.is_number_integer(), where, "token '", token, "' must have a number");
    if (const auto place = place_of(kept, id.get<std::int64_t>())) left[token] = *place;
  }
  return left;
}

// "a b" a line behind a "#version" line; the vocabulary beside it says what is left.
std::string trim_merges(const std::string& merges, const nlohmann::json& vocab) {
  std::string left;
  std::istringstream lines(merges);
  for (std::string line; std::getline(lines, line);) {
    const std::size_t space = line.find(' ');
    const bool merge = !line.starts_with("#version") && space != std::string::npos;
    if (merge) {
      const std::string a = line.substr(0, space), b = line.substr(space + 1);
      if (!vocab.contains(a) || !vocab.contains(b) || !vocab.contains(a + b)) continue;
    }
    left += line + '\n';
  }
  return left;
}

}  // namespace

std::vector<std::string> write_tokenizer_of_gguf(const io::GgufFile& file,
                                                 const std::filesystem::path& folder,
                                                 KeptTokens kept) {
  const std::string_view model = file.string("tokenizer.ggml.model");
  require(model == "gpt2" || model == "llama", file.path().string(), "tokenizer.ggml.model '",
          model, "' cannot be written as tokenizer.json; supported: gpt2, llama");
  const Vocabulary vocabulary(file);
  const Json whole =
      model == "gpt2" ? byte_level_tokenizer(file, vocabulary) : scored_tokenizer(file, vocabulary);
  if (kept.empty()) {
    io::write_json(folder / "tokenizer.json", whole);
  } else {
    write_tokenizer_json(folder / "tokenizer.json",
                         trim_tokenizer_json(nlohmann::json(whole), kept, file.path().string()));
  }
  io::write_json(folder / "tokenizer_config.json", tokenizer_config(file, vocabulary));
  std::vector<std::string> notes;
  if (model == "llama") {
    notes.push_back("the merges in tokenizer.json were made from the scores of the vocabulary");
  }
  return notes;
}

void copy_trimmed(const std::filesystem::path& file, const std::filesystem::path& folder,
                  KeptTokens kept) {
  const std::string name = file.filename().string();
  const std::filesystem::path to = folder / name;
  if (kept.empty()) {
    io::copy_file(file, to);
  } else if (name == "tokenizer.json") {
    write_tokenizer_json(to, trim_tokenizer_json(io::load_json(file), kept, file.string()));
  } else if (name == "tokenizer.model") {
    io::write_file(to, trim_sentencepiece(io::read_file(file), kept, file.string()));
  } else if (name == "vocab.json" || name == "added_tokens.json") {
    io::write_json(to, by_id(trim_vocab(io::load_json(file), kept, file.string())));
  } else if (name == "merges.txt" && std::filesystem::exists(file.parent_path() / "vocab.json")) {
    const auto vocab = file.parent_path() / "vocab.json";
    io::write_file(to, trim_merges(io::read_file(file),
                                   trim_vocab(io::load_json(vocab), kept, vocab.string())));
  } else if (name.ends_with("_config.json")) {
    Json config(io::load_json(file));
    renumber_ids(config, kept);
    io::write_json(to, config);
  } else {
    io::copy_file(file, to);
  }
}

}  // namespace attar
