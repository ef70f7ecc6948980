// ModelProto of sentencepiece, written for tests.
#pragma once

#include <bit>
#include <string>

#include "compress/tokenize/sentencepiece.h"

namespace attar::tokenize {

// Protobuf, as far as a ModelProto needs it.
inline std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes += static_cast<char>(value);
}
inline std::string number(int field, std::uint64_t value) {
  return varint(field << 3) + varint(value);
}
inline std::string text(int field, const std::string& value) {
  return varint(field << 3 | 2) + varint(value.size()) + value;
}
inline std::string real(int field, float value) {
  std::string bytes = varint(field << 3 | 5);
  for (int i = 0; i < 4; ++i) {
    bytes += static_cast<char>(std::bit_cast<std::uint32_t>(value) >> (8 * i));
  }
  return bytes;
}
inline std::string piece(const std::string& spelling, float score, PieceType type) {
  return text(1, text(1, spelling) + real(2, score) + number(3, static_cast<unsigned>(type)));
}

}  // namespace attar::tokenize
