// The "pattern" field of tokenizer.json: {"String": ...} or {"Regex": ...}.
#pragma once

#include "compress/tokenize/json_field.h"
#include "compress/tokenize/pattern.h"

namespace attar::tokenize {

// `node` is the object that has the field.
inline Pattern read_pattern(const Node& node) {
  const Node pattern = node["pattern"];
  if (pattern.has("Regex")) {
    const Node regex = pattern["Regex"];
    return Pattern(regex.string(), regex.where);
  }
  const Node literal = pattern["String"];
  require(!literal.string().empty(), literal.where, "the string to look for is empty");
  return Pattern::literal(literal.string(), literal.where);
}

}  // namespace attar::tokenize
