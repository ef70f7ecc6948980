// Text files -> documents -> one stream of tokens, with a mark on those that count.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar {

struct DocumentFiles {
  // *.jsonl: a document a line, {"text": ...} or {"prompt": ..., "completion": ...}, of which only
  // the completion counts. Any other file: UTF-8 text.
  std::vector<std::string> paths;
  std::string separator;    // cuts a text file into documents; empty: the file is one
  bool end_of_text = true;  // EOS after each document, where the tokenizer has one
};

// A text file whole, up to 16 GiB. Throws IoError, and BadInput where it is no UTF-8.
std::string read_text_file(const std::string& path);

// Whether the file is read a document a line.
bool is_json_lines(std::string_view path);

// Every document in its order; the prompt is empty where there is none. Throws as read_documents
// does.
void for_each_document(
    const DocumentFiles& files,
    const std::function<void(std::string_view prompt, std::string_view text)>& read);

// All documents one after the other, each with BOS in front where the tokenizer adds one.
struct DocumentTokens {
  std::vector<TokenId> ids;
  std::vector<std::uint8_t> counts;  // 1 where predicting this token counts
  std::int64_t documents = 0;
  std::string sha256;  // of ids and counts
};

// Throws IoError for a file that cannot be read, BadInput for a line that is no such JSON or text
// without tokens.
DocumentTokens read_documents(const DocumentFiles& files, const Tokenizer& tokenizer);

}  // namespace attar
