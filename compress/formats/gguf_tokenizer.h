// The tokenizer of a Hugging Face folder in the form of GGUF.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "compress/io/gguf_file.h"
#include "compress/tokenize/tokenizer.h"

namespace attar {

// The keys tokenizer.* of a GGUF file.
struct GgufVocabulary {
  std::string model;  // "gpt2": byte-level BPE, "llama": merges by score, bytes as a way out
  std::string pre;
  std::vector<std::string> tokens;
  std::vector<float> scores;  // model "llama" only
  std::vector<std::int32_t>
      types;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  std::vector<std::string> merges;  // model "gpt2" only
  std::optional<std::int64_t> bos, eos, unknown, padding;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;
  std::optional<std::string> chat_template;
  std::vector<std::string> notes;  // what has no counterpart
};

// Reads tokenizer.json (byte-level BPE; BPE with byte fallback) or tokenizer.model of a folder.
// The vocabulary is filled up to `size` tokens with unused ones. With `kept`, what is left of it
// (compress/tokenize/trim.h); `size` is their number then. Throws BadInput when there is no
// tokenizer, when it has more than `size` tokens, or when it splits text in a way that llama.cpp
// has no name for ("unknown pre-tokenizer"): the wrong name gives silently wrong ids.
GgufVocabulary read_gguf_vocabulary(const std::filesystem::path& folder, std::int64_t size,
                                    KeptTokens kept = {});

void write_vocabulary(io::GgufWriter& writer, const GgufVocabulary& vocabulary);

// The keys tokenizer.* of another GGUF file with the kept tokens (empty: byte for byte). Keys that
// name a token that went are left out, and so is a tokenizer.json inside of the file.
void write_vocabulary(io::GgufWriter& writer, const io::GgufFile& file, KeptTokens kept);

}  // namespace attar
