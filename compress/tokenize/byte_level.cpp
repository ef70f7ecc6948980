#include "compress/tokenize/byte_level.h"

#include <array>

#include "compress/tokenize/unicode.h"

namespace attar::tokenize {
namespace {

struct Alphabet {
  std::array<char32_t, 256> character{};
  std::array<int, 512> byte{};  // -1 outside of the alphabet

  Alphabet() {
    byte.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool itself = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      character[b] = itself ? static_cast<char32_t>(b) : next++;
      byte[character[b]] = b;
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet kAlphabet;
  return kAlphabet;
}

}  // namespace

void append_byte_level(std::string_view text, std::string& out) {
  for (const char c : text) {
    append_character(out, alphabet().character[static_cast<unsigned char>(c)]);
  }
}

void append_bytes_of(std::string_view token, std::string& out) {
  const std::size_t before = out.size();
  for (std::size_t at = 0; at < token.size(); at += character_length(token[at])) {
    const char32_t c = first_character(token.substr(at));
    const int byte = c < alphabet().byte.size() ? alphabet().byte[c] : -1;
    if (byte < 0) {
      out.resize(before);
      out += token;
      return;
    }
    out += static_cast<char>(byte);
  }
}

}  // namespace attar::tokenize
