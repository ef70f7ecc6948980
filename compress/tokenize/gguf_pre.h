// What the names in tokenizer.ggml.pre stand for.
#pragma once

#include <string_view>
#include <vector>

namespace attar::tokenize {

struct GgufPre {
  std::vector<std::string_view> expressions;  // each isolates its matches, one after the other
  bool ignore_merges = false;
  bool add_bos = false;  // where the file has no add_bos_token
};

// Throws BadInput for an unknown name: another's expressions would give wrong ids without a word.
GgufPre gguf_pre(std::string_view name, std::string_view where);

}  // namespace attar::tokenize
