#include "compress/tokenize/pre_tokenizer.h"

#include <algorithm>
#include <map>

#include "compress/tokenize/byte_level.h"
#include "compress/tokenize/read_pattern.h"
#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

struct Segment {
  Span span;
  bool delimiter = false;
};

std::vector<Segment> segments_of(std::string_view text, const std::vector<Span>& delimiters) {
  std::vector<Segment> segments;
  std::size_t done = 0;
  for (const Span& span : delimiters) {
    if (done != span.begin) segments.push_back({{done, span.begin}, false});
    segments.push_back({span, true});
    done = span.end;
  }
  if (done != text.size()) segments.push_back({{done, text.size()}, false});
  return segments;
}

// Left to right: a segment that `joins` with the one before it is put onto the last part.
template <class Joins>
std::vector<Span> join(const std::vector<Segment>& segments, Joins joins) {
  std::vector<Span> parts;
  bool previous = false;
  for (const Segment& segment : segments) {
    if (!parts.empty() && joins(segment.delimiter, previous)) {
      parts.back().begin = std::min(parts.back().begin, segment.span.begin);
      parts.back().end = std::max(parts.back().end, segment.span.end);
    } else {
      parts.push_back(segment.span);
    }
    previous = segment.delimiter;
  }
  return parts;
}

// Splits every piece at the delimiters that `find` gives for its text.
template <class Find>
PreTokenizer splitter(Find find, SplitBehavior behavior, bool invert = false) {
  return [=](std::vector<Piece>& pieces) {
    std::vector<Piece> result;
    for (Piece& piece : pieces) {
      for (const Span& span : split_at(piece.text, find(piece.text), behavior, invert)) {
        if (span.begin == span.end) continue;
        result.push_back({piece.text.substr(span.begin, span.end - span.begin),
                          piece.at_start && span.begin == 0});
      }
    }
    pieces = std::move(result);
  };
}

// Every character of the class is a delimiter of its own.
auto each_character(bool (*in_class)(char32_t)) {
  return [in_class](std::string_view text) {
    std::vector<Span> spans;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = character_length(text[at]);
      if (in_class(first_character(text.substr(at)))) spans.push_back({at, at + length});
      at += length;
    }
    return spans;
  };
}

auto each_match(Pattern pattern) {
  return [pattern = std::move(pattern)](std::string_view text) { return pattern.find_all(text); };
}

SplitBehavior read_behavior(const Node& node) {
  static const std::map<std::string, SplitBehavior, std::less<>> kNames = {
      {"Removed", SplitBehavior::removed},
      {"Isolated", SplitBehavior::isolated},
      {"MergedWithPrevious", SplitBehavior::merged_with_previous},
      {"MergedWithNext", SplitBehavior::merged_with_next},
      {"Contiguous", SplitBehavior::contiguous}};
  const auto found = kNames.find(node.string());
  require(found != kNames.end(), node.where, "unknown behavior '", node.string(),
          "'; known are Removed, Isolated, MergedWithPrevious, MergedWithNext, Contiguous");
  return found->second;
}

PreTokenizer read_byte_level(const Node& node) {
  // GPT-2's expression; the file only says that it is used.
  static const Pattern kWords(
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "ByteLevel");
  const bool prefix_space = node.boolean_or("add_prefix_space", true);
  PreTokenizer words;
  if (node.boolean_or("use_regex", true)) {
    words = splitter(each_match(kWords), SplitBehavior::isolated);
  }
  return [=](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      if (prefix_space && !piece.text.starts_with(' ')) piece.text.insert(0, " ");
    }
    if (words) words(pieces);
    for (Piece& piece : pieces) {
      std::string mapped;
      append_byte_level(piece.text, mapped);
      piece.text = std::move(mapped);
    }
  };
}

PreTokenizer read_metaspace(const Node& node) {
  const std::string mark = node["replacement"].string();
  require(!mark.empty() && character_length(mark[0]) == mark.size(), node.where,
          "'replacement' must be one character");
  std::string scheme = node.string_or("prepend_scheme", "always");
  if (!node.boolean_or("add_prefix_space", true)) scheme = "never";
  require(scheme == "always" || scheme == "first" || scheme == "never", node.where,
          "unknown prepend_scheme '", scheme, "'; known are always, first, never");
  PreTokenizer words;
  if (node.boolean_or("split", true)) {
    words =
        splitter(each_match(Pattern::literal(mark, node.where)), SplitBehavior::merged_with_next);
  }
  return [=](std::vector<Piece>& pieces) {
    for (Piece& piece : pieces) {
      piece.text = replace_all(piece.text, " ", mark);
      const bool wanted = scheme == "always" || (scheme == "first" && piece.at_start);
      if (wanted && !piece.text.starts_with(mark)) piece.text.insert(0, mark);
    }
    if (words) words(pieces);
  };
}

PreTokenizer read_sequence(const Node& node) {
  std::vector<PreTokenizer> steps;
  for (std::size_t i = 0; i < node.array().value.size(); ++i) {
    steps.push_back(read_pre_tokenizer(node[i]));
  }
  return [steps](std::vector<Piece>& pieces) {
    for (const PreTokenizer& step : steps) step(pieces);
  };
}

}  // namespace

std::vector<Span> split_at(std::string_view text, const std::vector<Span>& delimiters,
                           SplitBehavior behavior, bool invert) {
  std::vector<Segment> segments = segments_of(text, delimiters);
  if (invert) {
    for (Segment& segment : segments) segment.delimiter = !segment.delimiter;
  }
  switch (behavior) {
    case SplitBehavior::removed:
      std::erase_if(segments, [](const Segment& segment) { return segment.delimiter; });
      return join(segments, [](bool, bool) { return false; });
    case SplitBehavior::isolated:
      return join(segments, [](bool, bool) { return false; });
    case SplitBehavior::contiguous:
      return join(segments, [](bool delimiter, bool previous) { return delimiter == previous; });
    case SplitBehavior::merged_with_previous:
      return join(segments, [](bool delimiter, bool previous) { return delimiter && !previous; });
    case SplitBehavior::merged_with_next:
      break;
  }
  std::reverse(segments.begin(), segments.end());
  auto parts = join(segments, [](bool delimiter, bool next) { return delimiter && !next; });
  std::reverse(parts.begin(), parts.end());
  return parts;
}

PreTokenizer read_pre_tokenizer(const Node& node) {
  const std::string type = node.type();
  if (type == "ByteLevel") return read_byte_level(node);
  if (type == "Metaspace") return read_metaspace(node);
  if (type == "Split") {
    return splitter(each_match(read_pattern(node)), read_behavior(node["behavior"]),
                    node.boolean_or("invert", false));
  }
  if (type == "Digits") {
    const bool individual = node.boolean_or("individual_digits", false);
    return splitter(each_character(is_number),
                    individual ? SplitBehavior::isolated : SplitBehavior::contiguous);
  }
  if (type == "Whitespace") {
    return splitter(each_match(Pattern(R"(\w+|[^\w\s]+)", node.where)), SplitBehavior::removed,
                    true);
  }
  if (type == "WhitespaceSplit") {
    return splitter(each_character(is_whitespace), SplitBehavior::removed);
  }
  if (type == "Punctuation") {
    return splitter(each_character(is_punctuation), node.has("behavior")
                                                        ? read_behavior(node["behavior"])
                                                        : SplitBehavior::isolated);
  }
  if (type == "Sequence") return read_sequence(node["pretokenizers"]);
  refuse_type(node, "pre-tokenizer");
}

}  // namespace attar::tokenize
