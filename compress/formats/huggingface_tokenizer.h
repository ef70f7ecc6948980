// The tokenizer of a GGUF file in the form of Hugging Face.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "compress/io/gguf_file.h"
#include "compress/tokenize/tokenizer.h"

namespace attar {

// Writes tokenizer.json and tokenizer_config.json (special tokens, chat template) so that
// transformers' AutoTokenizer gives the ids that tokenizer_from_gguf gives. Byte-level BPE
// ("gpt2") and sentencepiece-like BPE ("llama"; its merges are made from the scores). Returns notes
// on what has no counterpart. With `kept`, what is left of it (compress/tokenize/trim.h). Throws
// BadInput for another kind.
std::vector<std::string> write_tokenizer_of_gguf(const io::GgufFile& file,
                                                 const std::filesystem::path& folder,
                                                 KeptTokens kept = {});

// Copies a file of a tokenizer into `folder`, cut down to `kept`: tokenizer.json, tokenizer.model,
// vocab.json, merges.txt, added_tokens.json and the ids in *_config.json. Others as they are.
void copy_trimmed(const std::filesystem::path& file, const std::filesystem::path& folder,
                  KeptTokens kept);

}  // namespace attar
