// Text to token ids and back, from the files that models ship:
//
//   tokenizer.json          Hugging Face `tokenizers`: byte-level BPE and byte-fallback BPE
//   *.model                 sentencepiece ModelProto of type BPE
//   GGUF vocabulary         tokenizer.ggml.model = "gpt2" (byte-level BPE) or "llama"
//   (sentencepiece)
//
// Ids equal those of the program that the file was written for. What the file asks for and attar
// does not do (a Unigram model, an unknown pre-tokenizer ...) is a BadInput that names the file,
// the place in it and the type; nothing is approximated.
//
// Text is UTF-8. Ill-formed input is never an error: each maximal ill-formed part becomes U+FFFD,
// as in Python's bytes.decode(errors="replace") and Unicode 15 section 3.9 (table 3-8).
//
// Non-goals: chat templates are handed out as text and not rendered; training.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace attar {

namespace io {
class GgufFile;
}

using TokenId = std::int32_t;

// By token: the tokens that were joined to it, each once.
using MergeParts = std::vector<std::vector<TokenId>>;

// Tokens of an old vocabulary that a new one keeps: new id i is old id kept[i]. Ascending; empty
// stands for all of them.
using KeptTokens = std::span<const std::int64_t>;

// Immutable after loading; every method may be called from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Token ids of `text`. Added and special tokens that stand in the text are recognised, as Hugging
  // Face does. With `add_special`, also what the file wants around every text: the template of the
  // post-processor, or add_bos / add_eos.
  virtual std::vector<TokenId> encode(std::string_view text, bool add_special = false) const = 0;

  // As encode(text), and enters into `parts` [vocabulary_size()] what the encoder joined on its
  // way. The default is for an encoder that joins nothing.
  virtual std::vector<TokenId> encode_noting(std::string_view text, MergeParts& /*parts*/) const {
    return encode(text);
  }

  // Whether a vocabulary must have the token to encode any text at all, or for its files to make
  // sense: bytes (where it has none: single characters), added and special tokens.
  virtual bool is_basic(TokenId /*id*/) const { return true; }

  // Text of the whole sequence, as `tokenizers`' decode: a word's first space may fall away at the
  // start, so decode(a + b) need not be decode(a) + decode(b). Ids outside of the vocabulary are
  // left out. The result is valid UTF-8: bytes that form no character become U+FFFD.
  virtual std::string decode(std::span<const TokenId> ids, bool skip_special = true) const = 0;

  // One more than the highest id, added tokens included.
  virtual std::int64_t vocabulary_size() const = 0;

  virtual std::optional<TokenId> bos() const = 0;
  virtual std::optional<TokenId> eos() const = 0;
  // What ends an answer: the EOS first, then what the model's files name beside it.
  virtual std::vector<TokenId> ends() const {
    return eos() ? std::vector<TokenId>{*eos()} : std::vector<TokenId>{};
  }
  virtual std::optional<TokenId> unknown() const = 0;
  virtual std::optional<TokenId> padding() const = 0;

  // Whether encode(..., add_special) puts a BOS first.
  virtual bool adds_bos() const = 0;

  // Vocabulary entries by their spelling in the file ("Ġthe", "▁the", "<0x0A>"). `token` is empty
  // for ids that have none.
  virtual std::optional<TokenId> id_of(std::string_view token) const = 0;
  virtual std::string_view token(TokenId id) const = 0;
  virtual bool is_special(TokenId id) const = 0;

  // The Jinja text of tokenizer_config.json / chat_template.jinja / tokenizer.chat_template.
  virtual std::optional<std::string> chat_template() const = 0;
};

// Loads from a Hugging Face folder (tokenizer.json or tokenizer.model, with tokenizer_config.json,
// config.json and generation_config.json for the special ids), from a tokenizer.json or from a
// sentencepiece model file. Throws BadInput or IoError.
//
// With `kept`: the tokenizer that is left of it (trim.h).
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file,
                                                KeptTokens kept = {});

// The vocabulary inside a GGUF file. Refuses an unknown tokenizer.ggml.model or .pre: a wrong
// pre-tokenizer gives silently wrong ids.
std::shared_ptr<const Tokenizer> tokenizer_from_gguf(const io::GgufFile& file,
                                                     KeptTokens kept = {});

}  // namespace attar
