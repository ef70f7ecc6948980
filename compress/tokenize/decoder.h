// Decoders of tokenizer.json: a list of tokens becomes a list of strings, joined at the end.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compress/tokenize/json_field.h"

namespace attar::tokenize {

using Decoder = std::function<std::vector<std::string>(std::vector<std::string>)>;

// ByteLevel, ByteFallback, Fuse, Strip, Replace, Metaspace, BPEDecoder, Sequence. Throws BadInput
// for another type.
Decoder read_decoder(const Node& node);

}  // namespace attar::tokenize
