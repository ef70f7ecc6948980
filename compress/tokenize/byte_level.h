// The byte-level alphabet of GPT-2: each byte as one printable character, so that a
// BPE over characters works on any bytes.
#pragma once

#include <string>
#include <string_view>

namespace attar::tokenize {

// Each byte of `text` as its character, appended to `out`.
void append_byte_level(std::string_view text, std::string& out);

// The bytes that `token` spells, appended to `out`; a token with a character outside of the
// alphabet stands for its own bytes.
void append_bytes_of(std::string_view token, std::string& out);

}  // namespace attar::tokenize
