#include "compress/formats/gguf_tokenizer.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "compress/core/errors.h"
#include "compress/families/json_keys.h"
#include "compress/io/json.h"
#include "compress/tokenize/sentencepiece.h"
#include "compress/tokenize/tokenizer.h"
#include "compress/tokenize/trim.h"

namespace attar {
namespace {

using Json = nlohmann::json;
using tokenize::PieceType;

constexpr std::int64_t kMaxTokens = 1 << 22;

constexpr std::string_view kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// A way to split text by the name that llama.cpp has for it.
struct KnownPre {
  std::string_view name;
  std::vector<std::string_view> expressions;
  bool ignore_merges;
};

const std::vector<KnownPre>& known_pres() {
  static const std::vector<KnownPre> known = {{"smollm", {R"(\p{N})", kGpt2}, false},
                                              {"gpt-2", {kGpt2}, false},
                                              {"llama-bpe", {kLlama3}, true},
                                              {"qwen2", {kQwen2}, false}};
  return known;
}

// The expressions that a pre_tokenizer applies one after the other; false when a step is none.
bool collect_expressions(const Json& step, std::vector<std::string>& expressions) {
  const JsonKeys keys(step, "pre_tokenizer");
  const std::string type = keys.string("type");
  if (type == "Sequence") {
    const Json* steps = keys.find("pretokenizers");
    return steps != nullptr && steps->is_array() && steps->size() <= 16 &&
           std::all_of(steps->begin(), steps->end(), [&](const Json& inner) {
             return inner.value("type", "") != "Sequence" &&
                    collect_expressions(inner, expressions);
           });
  }
  if (type == "ByteLevel") {
    if (keys.boolean_or("add_prefix_space", true)) return false;
    if (keys.boolean_or("use_regex", true)) expressions.emplace_back(kGpt2);
    return true;
  }
  if (type == "Digits") {
    expressions.emplace_back(R"(\p{N})");
    return keys.boolean_or("individual_digits", false);
  }
  if (type != "Split" || keys.boolean_or("invert", false)) return false;
  const std::string behavior = keys.string("behavior");
  const JsonKeys pattern = keys.below("pattern");
  if (!pattern.has("Regex")) return false;
  expressions.push_back(pattern.string("Regex"));
  return behavior == "Isolated";
}

std::string pre_name(const JsonKeys& tokenizer, bool ignore_merges) {
  std::vector<std::string> expressions;
  const Json* step = tokenizer.find("pre_tokenizer");
  if (step != nullptr && collect_expressions(*step, expressions)) {
    for (const KnownPre& known : known_pres()) {
      if (std::equal(known.expressions.begin(), known.expressions.end(), expressions.begin(),
                     expressions.end()) &&
          known.ignore_merges == ignore_merges) {
        return std::string(known.name);
      }
    }
  }
  throw BadInput(message(tokenizer.where(),
                         "unknown pre-tokenizer: llama.cpp has no name for this "
                         "way to split text, or attar does not know it (known: smollm, gpt-2, "
                         "llama-bpe, qwen2); export as huggingface"));
}

std::string merge_text(const Json& merge, std::string_view where) {
  if (merge.is_string()) return merge.get<std::string>();
  require(merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string(),
          where, "a merge must be two tokens");
  return merge[0].get<std::string>() + " " + merge[1].get<std::string>();
}

bool is_byte_token(std::string_view token) {
  return token.size() == 6 && token.starts_with("<0x") && token.ends_with(">");
}

// Reads the parts of one tokenizer.json.
class TokenizerJson {
 public:
  TokenizerJson(const Json& json, const std::string& where, std::int64_t size)
      : keys_(json, where), model_(keys_.below("model")), size_(size) {}

  GgufVocabulary read() {
    const std::string type = model_.string("type");
    require(type == "BPE", keys_.where(), "model type '", type,
            "' cannot be written to GGUF; supported: BPE");
    tokens();
    added_tokens();
    if (model_.boolean_or("byte_fallback", false)) {
      scored();
    } else {
      byte_level();
    }
    return std::move(vocabulary_);
  }

 private:
  void place(const std::string& token, const Json& id, std::int32_t type) {
    require(id.is_number_integer() && id >= 0 && id < size_, keys_.where(), "token '", token,
            "' must have an id below the ", size_, " rows of the embedding");
    const auto at = id.get<std::size_t>();
    if (vocabulary_.types[at] != 5) {
      require(vocabulary_.tokens[at] == token, keys_.where(), "id ", at, " has two tokens");
    }
    vocabulary_.tokens[at] = token;
    vocabulary_.types[at] = type;
  }

  void tokens() {
    vocabulary_.types.assign(static_cast<std::size_t>(size_), 5);
    for (std::int64_t i = 0; i < size_; ++i) {
      vocabulary_.tokens.push_back("[PAD" + std::to_string(i) + "]");
    }
    for (const auto& [token, id] : model_.below("vocab").object().items()) place(token, id, 1);
  }

  void added_tokens() {
    const Json* added = keys_.find("added_tokens");
    if (added == nullptr) return;
    require(added->is_array(), keys_.where(), "added_tokens must be a list");
    for (const Json& entry : *added) {
      const JsonKeys token(entry, keys_.where() + ": added_tokens");
      const Json* id = token.find("id");
      require(id != nullptr, token.where(), "key 'id' is missing");
      place(token.string("content"), *id, token.boolean_or("special", false) ? 3 : 4);
    }
  }

  void byte_level() {
    vocabulary_.model = "gpt2";
    vocabulary_.pre = pre_name(keys_, model_.boolean_or("ignore_merges", false));
    const Json* merges = model_.find("merges");
    require(merges != nullptr && merges->is_array(), keys_.where(), "merges must be a list");
    for (const Json& merge : *merges) {
      vocabulary_.merges.push_back(merge_text(merge, keys_.where()));
    }
    if (const Json* normalizer = keys_.find("normalizer")) {
      require(normalizer->value("type", "") == "NFC", keys_.where(),
              "a normalizer cannot be written to GGUF");
      vocabulary_.notes.push_back("llama.cpp does not apply the NFC normalizer of the tokenizer");
    }
  }

  // Scores fall with the rank of the merge that makes a token, so that llama.cpp merges in the
  // same order.
  void scored() {
    vocabulary_.model = "llama";
    vocabulary_.pre = "default";
    std::unordered_map<std::string_view, std::size_t> ids;
    for (std::size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      ids.emplace(vocabulary_.tokens[i], i);
      if (is_byte_token(vocabulary_.tokens[i])) vocabulary_.types[i] = 6;
    }
    vocabulary_.scores.assign(vocabulary_.tokens.size(), -1e6F);
    const Json* merges = model_.find("merges");
    require(merges != nullptr && merges->is_array(), keys_.where(), "merges must be a list");
    float score = 0;
    for (const Json& merge : *merges) {
      std::string text = merge_text(merge, keys_.where());
      text.erase(text.find(' ', 1), 1);
      const auto made = ids.find(text);
      require(made != ids.end(), keys_.where(), "a merge makes '", text, "', which is no token");
      if (vocabulary_.scores[made->second] == -1e6F) vocabulary_.scores[made->second] = score--;
    }
    if (model_.has("unk_token")) {
      const auto unknown = ids.find(model_.string("unk_token"));
      if (unknown != ids.end()) vocabulary_.types[unknown->second] = 2;
    }
    vocabulary_.add_space_prefix = prefixes_space();
  }

  bool prefixes_space() const {
    const auto says = [](const Json* value, std::string_view word) {
      return value != nullptr && value->dump().find(word) != std::string::npos;
    };
    return says(keys_.find("normalizer"), "\"Prepend\"") ||
           (says(keys_.find("pre_tokenizer"), "\"Metaspace\"") &&
            !says(keys_.find("pre_tokenizer"), "\"never\""));
  }

  JsonKeys keys_;
  JsonKeys model_;
  std::int64_t size_;
  GgufVocabulary vocabulary_;
};

GgufVocabulary from_sentencepiece(const std::filesystem::path& path, std::int64_t size,
                                  KeptTokens kept) {
  std::string bytes = io::read_file(path, std::uint64_t{64} << 20);
  if (!kept.empty()) bytes = trim_sentencepiece(bytes, kept, path.string());
  const tokenize::SentencePieceModel model =
      tokenize::read_sentencepiece(std::as_bytes(std::span(bytes)), path.string());
  require(std::ssize(model.pieces) <= size, path.string(), "has ", model.pieces.size(),
          " pieces, more than the ", size, " rows of the embedding");
  GgufVocabulary vocabulary;
  vocabulary.model = "llama";
  vocabulary.pre = "default";
  vocabulary.add_space_prefix = model.add_dummy_prefix;
  if (model.remove_extra_whitespaces) {
    vocabulary.notes.push_back(
        "the tokenizer takes runs of spaces as one space, llama.cpp keeps them: ids of such texts "
        "differ");
  }
  for (const tokenize::ScoredPiece& piece : model.pieces) {
    vocabulary.tokens.push_back(piece.text);
    vocabulary.scores.push_back(piece.score);
    vocabulary.types.push_back(static_cast<std::int32_t>(piece.type));
  }
  for (std::int64_t i = std::ssize(model.pieces); i < size; ++i) {
    vocabulary.tokens.push_back("[PAD" + std::to_string(i) + "]");
    vocabulary.scores.push_back(-1e6F);
    vocabulary.types.push_back(5);
  }
  return vocabulary;
}

// What the loaded tokenizer says better than its file: ids of special tokens, what stands around a
// text, the chat template.
void add_specials(GgufVocabulary& vocabulary, const Tokenizer& tokenizer) {
  vocabulary.bos = tokenizer.bos();
  vocabulary.eos = tokenizer.eos();
  vocabulary.unknown = tokenizer.unknown();
  vocabulary.padding = tokenizer.padding();
  vocabulary.add_bos = tokenizer.adds_bos();
  const std::vector<TokenId> empty = tokenizer.encode("", true);
  vocabulary.add_eos = !empty.empty() && tokenizer.eos() && empty.back() == *tokenizer.eos() &&
                       (empty.size() > 1 || !vocabulary.add_bos);
  vocabulary.chat_template = tokenizer.chat_template();
}

}  // namespace

GgufVocabulary read_gguf_vocabulary(const std::filesystem::path& folder, std::int64_t size,
                                    KeptTokens kept) {
  const std::filesystem::path path = folder / "tokenizer.json";
  require(size > 0 && size <= kMaxTokens, folder.string(), "cannot write a vocabulary of ", size);
  GgufVocabulary vocabulary;
  if (std::filesystem::exists(path)) {
    const Json json = trim_tokenizer_json(io::load_json(path), kept, path.string());
    vocabulary = TokenizerJson(json, path.string(), size).read();
  } else {
    vocabulary = from_sentencepiece(folder / "tokenizer.model", size, kept);
  }
  add_specials(vocabulary, *load_tokenizer(folder, kept));
  return vocabulary;
}

void write_vocabulary(io::GgufWriter& writer, const GgufVocabulary& vocabulary) {
  const auto set_id = [&](const char* key, const std::optional<std::int64_t>& id) {
    if (id) writer.set_u32(key, static_cast<std::uint32_t>(*id));
  };
  writer.set_string("tokenizer.ggml.model", vocabulary.model);
  writer.set_string("tokenizer.ggml.pre", vocabulary.pre);
  writer.set_strings("tokenizer.ggml.tokens", std::span<const std::string>(vocabulary.tokens));
  if (!vocabulary.scores.empty()) writer.set_f32s("tokenizer.ggml.scores", vocabulary.scores);
  writer.set_i32s("tokenizer.ggml.token_type", vocabulary.types);
  if (vocabulary.model == "gpt2") {
    writer.set_strings("tokenizer.ggml.merges", std::span<const std::string>(vocabulary.merges));
  }
  set_id("tokenizer.ggml.bos_token_id", vocabulary.bos);
  set_id("tokenizer.ggml.eos_token_id", vocabulary.eos);
  set_id("tokenizer.ggml.unknown_token_id", vocabulary.unknown);
  set_id("tokenizer.ggml.padding_token_id", vocabulary.padding);
  writer.set_bool("tokenizer.ggml.add_bos_token", vocabulary.add_bos);
  writer.set_bool("tokenizer.ggml.add_eos_token", vocabulary.add_eos);
  writer.set_bool("tokenizer.ggml.add_space_prefix", vocabulary.add_space_prefix);
  if (vocabulary.chat_template) {
    writer.set_string("tokenizer.chat_template", *vocabulary.chat_template);
  }
}

void write_vocabulary(io::GgufWriter& writer, const io::GgufFile& file, KeptTokens kept) {
  const bool trims = !kept.empty() && file.has("tokenizer.ggml.tokens");
  const GgufTokens left = trims ? gguf_tokens(file, kept) : GgufTokens();
  for (const io::GgufEntry& entry : file.entries()) {
    const std::string_view key = entry.key;
    if (!key.starts_with("tokenizer.")) continue;
    if (!trims) {
      writer.set_entry(entry);
    } else if (key == "tokenizer.ggml.tokens") {
      writer.set_strings(key, std::span(left.tokens));
    } else if (key == "tokenizer.ggml.scores") {
      writer.set_f32s(key, left.scores);
    } else if (key == "tokenizer.ggml.token_type") {
      writer.set_i32s(key, left.types);
    } else if (key == "tokenizer.ggml.merges") {
      writer.set_strings(key, std::span(left.merges));
    } else if (key.ends_with("_token_id")) {
      const auto place = place_of(kept, file.i64(key));
      if (place) writer.set_u32(key, static_cast<std::uint32_t>(*place));
    } else if (key != "tokenizer.huggingface.json") {
      writer.set_entry(entry);
    }
  }
}

}  // namespace attar
