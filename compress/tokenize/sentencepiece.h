// sentencepiece models of type BPE: merges by score, byte fallback, a mark for spaces. GGUF's
// "llama" vocabularies are the same, told in other words.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/tokenize/charsmap.h"
#include "compress/tokenize/special_ids.h"
#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

// As numbered in ModelProto.SentencePiece.Type and in tokenizer.ggml.token_type.
enum class PieceType {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct ScoredPiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::normal;
};

struct SentencePieceModel {
  std::vector<ScoredPiece> pieces;  // by id
  Charsmap charsmap;                // NFKC and the like; empty: characters stay
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = false;
  bool escape_whitespaces = true;
  bool byte_fallback = false;
  bool treat_whitespace_as_suffix = false;
  std::string unknown_surface = " \xE2\x81\x87 ";  // U+2047, what an unknown id decodes to
  bool add_bos = false;                            // with add_special
  bool add_eos = false;
  // Control and unknown pieces that stand in the text are recognised: yes for GGUF, as llama.cpp
  // with parse_special, no for a bare sentencepiece model.
  bool control_in_text = false;
  SpecialIds special;
};

// Reads a serialized ModelProto; hostile bytes are a BadInput. `where` names the file.
SentencePieceModel read_sentencepiece(std::span<const std::byte> bytes, std::string_view where);

// Throws BadInput for an id, score or type that cannot be; `where` names the file.
std::shared_ptr<const Tokenizer> make_sentencepiece(SentencePieceModel model,
                                                    std::string_view where);

}  // namespace attar::tokenize
