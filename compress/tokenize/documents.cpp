#include "compress/tokenize/documents.h"

#include <nlohmann/json.hpp>
#include <span>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"
#include "compress/io/json_builder.h"

namespace attar {
namespace {

using Document = std::function<void(std::string_view prompt, std::string_view text)>;

void read_lines(const std::string& path, std::string_view text, const Document& add) {
  std::size_t begin = 0;
  for (std::int64_t line = 1; begin < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view one = text.substr(begin, end - begin);
    begin = end + 1;
    if (one.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path + ": line " + std::to_string(line);
    const nlohmann::json document = io::parse_json(one, where);
    const auto text_of = [&](const char* key) {
      require(document.is_object() && document.contains(key) && document[key].is_string(), where,
              "must be {\"text\": ...} or {\"prompt\": ..., \"completion\": ...} with strings");
      return document[key].get<std::string>();
    };
    const bool asked = document.is_object() && document.contains("prompt");
    add(asked ? text_of("prompt") : std::string(), text_of(asked ? "completion" : "text"));
  }
}

void read_file(const DocumentFiles& files, const std::string& path, const Document& add) {
  const std::string text = read_text_file(path);
  if (is_json_lines(path)) return read_lines(path, text, add);
  if (files.separator.empty()) return add({}, text);
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(files.separator, begin), text.size());
    if (end > begin) add({}, std::string_view(text).substr(begin, end - begin));
    begin = end + files.separator.size();
  }
}

class Collector {
 public:
  Collector(const DocumentFiles& files, const Tokenizer& tokenizer)
      : files_(files), tokenizer_(tokenizer) {}

  DocumentTokens finish() {
    io::Sha256 hash;
    hash.update(std::as_bytes(std::span(tokens_.ids)));
    hash.update(std::as_bytes(std::span(tokens_.counts)));
    tokens_.sha256 = hash.hex();
    return std::move(tokens_);
  }

  void add(std::string_view prompt, std::string_view text) {
    if (tokenizer_.adds_bos() && tokenizer_.bos()) push(*tokenizer_.bos(), false);
    for (const TokenId id : tokenizer_.encode(prompt)) push(id, false);
    for (const TokenId id : tokenizer_.encode(text)) push(id, true);
    if (files_.end_of_text && tokenizer_.eos()) push(*tokenizer_.eos(), true);
    ++tokens_.documents;
  }

 private:
  void push(TokenId id, bool counts) {
    tokens_.ids.push_back(id);
    tokens_.counts.push_back(counts ? 1 : 0);
  }

  const DocumentFiles& files_;
  const Tokenizer& tokenizer_;
  DocumentTokens tokens_;
};

}  // namespace

std::string read_text_file(const std::string& path) {
  std::string text = io::read_file(path, std::uint64_t{1} << 34);
  const std::size_t broken = io::find_invalid_utf8(text);
  require(broken == std::string::npos, path, "is no UTF-8 text: byte ", broken, " of ", text.size(),
          " begins no whole character; name a text file, convert it, or cut it between characters");
  return text;
}

bool is_json_lines(std::string_view path) { return path.ends_with(".jsonl"); }

void for_each_document(const DocumentFiles& files, const Document& read) {
  require<UsageError>(!files.paths.empty(), "text",
                      "no text is given; name one or more files, UTF-8 or *.jsonl");
  for (const std::string& path : files.paths) read_file(files, path, read);
}

DocumentTokens read_documents(const DocumentFiles& files, const Tokenizer& tokenizer) {
  Collector collector(files, tokenizer);
  for_each_document(
      files, [&](std::string_view prompt, std::string_view text) { collector.add(prompt, text); });
  DocumentTokens tokens = collector.finish();
  require(!tokens.ids.empty(), files.paths.front(), "holds no tokens; give text");
  return tokens;
}

}  // namespace attar
