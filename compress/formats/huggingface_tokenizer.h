// The tokenizer of a GGUF file in the form of Hugging Face.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "compress/io/gguf_file.h"

namespace attar {

// Writes tokenizer.json and tokenizer_config.json (special tokens, chat template) so that
// transformers' AutoTokenizer gives the ids that tokenizer_from_gguf gives. Byte-level BPE
// ("gpt2") and sentencepiece-like BPE ("llama"; its merges are made from the scores). Returns notes
// on what has no counterpart. Throws BadInput for another kind.
std::vector<std::string> write_tokenizer_of_gguf(const io::GgufFile& file,
                                                 const std::filesystem::path& folder);

}  // namespace attar
