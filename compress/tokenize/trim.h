// Vocabularies cut down to the tokens that a text needs, and their files rewritten to match.
//
// Why the text keeps its pieces: byte-pair encoding does, again and again, the best merge of
// neighbours, best by a fixed order. Take away tokens, and every merge that reads or makes one of
// them. As long as no merge goes that the encoder does on the text, then at each step what it did
// is still there and still the best of fewer, so it does the same, to the end. It is therefore
// enough to keep the tokens that the text is cut into and those that stood on the way to them
// (Tokenizer::encode_noting), and more tokens do no harm.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar {

// How often a text uses each token, and what its encoder joined on the way.
struct TokenUse {
  explicit TokenUse(const Tokenizer& tokenizer)
      : counts(static_cast<std::size_t>(tokenizer.vocabulary_size())), parts(counts.size()) {}

  void add(const Tokenizer& tokenizer, std::string_view text);

  std::vector<std::int64_t> counts;  // by token
  MergeParts parts;
  std::int64_t tokens = 0;
};

struct KeepRule {
  std::int64_t min_count = 1;  // tokens that the text uses less often go
  std::int64_t size = 0;       // tokens at most; 0: as many as the text needs
  std::int64_t first = 0;      // ids below this stay whatever the text: the earliest merges
};

struct TokenChoice {
  std::vector<std::int64_t> kept;  // ascending
  std::int64_t basic = 0;          // of them, tokens that any text needs
  std::int64_t text = 0;           // ... that the text needs beside these
  // Tokens that the text needs and that went for min_count or size: 0 means that it is cut into the
  // same pieces as before.
  std::int64_t lost = 0;
};

// Basic tokens, `rule.first`, and what the text needs with everything on the way to it. Where that
// is too much, the tokens used least go first, the later of equal ones, none before those made from
// it; the uses of one that goes count for its parts. `rows` bounds the ids: those of the embedding.
//
// Throws UsageError for a `size` below the basic tokens, BadInput for text with an id that has no
// row.
TokenChoice choose_tokens(const Tokenizer& tokenizer, TokenUse use, const KeepRule& rule,
                          std::int64_t rows);

// New id of an old one; nothing when it went. With an empty `kept` every id stays.
std::optional<std::int64_t> place_of(KeptTokens kept, std::int64_t id);

// tokenizer.json with the kept tokens: vocabulary, merges (those whose parts and result stay), ids
// of added tokens, post-processor and padding. `where` names the file. Throws BadInput where a
// token that the file needs goes.
nlohmann::json trim_tokenizer_json(const nlohmann::json& file, KeptTokens kept,
                                   std::string_view where);

// Other files of a folder that tell ids: *_token_id (a number or a list) and lists of suppressed
// ids of config.json and generation_config.json, keys of added_tokens_decoder of
// tokenizer_config.json. An id that goes is left out.
void renumber_ids(nlohmann::ordered_json& file, KeptTokens kept);

// A sentencepiece ModelProto with the kept pieces; everything else as it is, sizes and ids of the
// trainer's part rewritten. Throws BadInput for bytes that are no ModelProto.
std::string trim_sentencepiece(std::string_view bytes, KeptTokens kept, std::string_view where);

// The arrays of a GGUF vocabulary, cut down. Views lie in the file.
struct GgufTokens {
  std::vector<std::string_view> tokens;
  std::vector<float> scores;             // empty: the file has none
  std::vector<std::int32_t> types;       // as in the file; empty: it has none
  std::vector<std::string_view> merges;  // "a b"
};
// Throws BadInput for arrays of different lengths and merges that are not two tokens.
GgufTokens gguf_tokens(const io::GgufFile& file, KeptTokens kept);

}  // namespace attar
