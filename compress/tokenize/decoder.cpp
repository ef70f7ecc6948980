#include "compress/tokenize/decoder.h"

#include <charconv>

#include "compress/tokenize/byte_level.h"
#include "compress/tokenize/read_pattern.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

using Strings = std::vector<std::string>;

Strings byte_level(Strings tokens) {
  std::string bytes;
  for (const std::string& token : tokens) append_bytes_of(token, bytes);
  return {to_well_formed(bytes)};
}

Strings fuse(Strings tokens) {
  std::string joined;
  for (const std::string& token : tokens) joined += token;
  return {joined};
}

// The byte of "<0xXX>", -1 for other tokens.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  unsigned byte = 0;
  const auto [end, error] = std::from_chars(token.data() + 3, token.data() + 5, byte, 16);
  return error == std::errc() && end == token.data() + 5 ? static_cast<int>(byte) : -1;
}

// A run of byte tokens becomes its text, or one U+FFFD a byte when it is not well-formed.
Strings byte_fallback(Strings tokens) {
  Strings result;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (well_formed_prefix(bytes) == bytes.size()) {
      result.push_back(bytes);
    } else {
      for (std::size_t i = 0; i < bytes.size(); ++i) result.emplace_back(kReplacement);
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = byte_of(token); byte >= 0) {
      bytes += static_cast<char>(byte);
    } else {
      flush();
      result.push_back(std::move(token));
    }
  }
  flush();
  return result;
}

// Applies `change` to every token.
template <class Change>
Decoder each(Change change) {
  return [change](Strings tokens) {
    for (std::size_t i = 0; i < tokens.size(); ++i) change(tokens[i], i, tokens.size());
    return tokens;
  };
}

// At most `start` copies of the character from the front of every token, `stop` from its back.
Decoder read_strip(const Node& node) {
  const std::string content = node["content"].string();
  require(!content.empty() && character_length(content[0]) == content.size(), node.where,
          "'content' must be one character");
  const int start = node["start"].integer();
  const int stop = node["stop"].integer();
  return each([=](std::string& token, std::size_t, std::size_t) {
    std::string_view rest = token;
    for (int i = 0; i < start && rest.starts_with(content); ++i) rest.remove_prefix(content.size());
    for (int i = 0; i < stop && rest.ends_with(content); ++i) rest.remove_suffix(content.size());
    token = std::string(rest);
  });
}

Decoder read_replace(const Node& node) {
  const Pattern pattern = read_pattern(node);
  const std::string content = node["content"].string();
  return each([=](std::string& token, std::size_t, std::size_t) {
    std::string replaced;
    std::size_t at = 0;
    for (const Span& span : pattern.find_all(token)) {
      replaced.append(token, at, span.begin - at);
      replaced += content;
      at = span.end;
    }
    token = replaced.append(token, at);
  });
}

// The mark is a space, and vanishes in the first token unless the encoder never puts one there.
Decoder read_metaspace(const Node& node) {
  const std::string mark = node["replacement"].string();
  require(!mark.empty(), node.where, "'replacement' is empty");
  const bool never = node.string_or("prepend_scheme", "always") == "never" ||
                     !node.boolean_or("add_prefix_space", true);
  return each([=](std::string& token, std::size_t index, std::size_t) {
    token = replace_all(token, mark, index == 0 && !never ? "" : " ");
  });
}

Decoder read_bpe_decoder(const Node& node) {
  const std::string suffix = node.string_or("suffix", "</w>");
  require(!suffix.empty(), node.where, "'suffix' is empty");
  return each([=](std::string& token, std::size_t index, std::size_t count) {
    token = replace_all(token, suffix, index + 1 == count ? "" : " ");
  });
}

Decoder read_sequence(const Node& node) {
  std::vector<Decoder> steps;
  for (std::size_t i = 0; i < node.array().value.size(); ++i) {
    steps.push_back(read_decoder(node[i]));
  }
  return [steps](Strings tokens) {
    for (const Decoder& step : steps) tokens = step(std::move(tokens));
    return tokens;
  };
}

}  // namespace

Decoder read_decoder(const Node& node) {
  const std::string type = node.type();
  if (type == "ByteLevel") return byte_level;
  if (type == "ByteFallback") return byte_fallback;
  if (type == "Fuse") return fuse;
  if (type == "Strip") return read_strip(node);
  if (type == "Replace") return read_replace(node);
  if (type == "Metaspace") return read_metaspace(node);
  if (type == "BPEDecoder") return read_bpe_decoder(node);
  if (type == "Sequence") return read_sequence(node["decoders"]);
  refuse_type(node, "decoder");
}

}  // namespace attar::tokenize
