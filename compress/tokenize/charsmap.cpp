#include "compress/tokenize/charsmap.h"

#include "compress/core/errors.h"

namespace attar::tokenize {
namespace {

// A unit of a darts-clone double array: bits 0-7 and 31 label, bit 8 has_leaf, bits 10-30 offset
// with bit 9 as its exponent; a leaf has bit 31 and its value below.
std::uint32_t offset_of(std::uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }
std::uint32_t label_of(std::uint32_t unit) { return unit & (1u << 31 | 0xFF); }
bool has_leaf(std::uint32_t unit) { return (unit >> 8 & 1) != 0; }
std::uint32_t value_of(std::uint32_t unit) { return unit & ~(1u << 31); }

std::uint32_t read_u32(std::string_view bytes) {
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    value |= std::uint32_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return value;
}

}  // namespace

Charsmap::Charsmap(std::string_view blob, std::string_view where) {
  if (blob.empty()) return;
  require(blob.size() > 4, where, "the character map has ", blob.size(), " bytes, no header");
  const std::uint32_t trie_bytes = read_u32(blob);
  blob.remove_prefix(4);
  require(trie_bytes <= blob.size() && trie_bytes % 4 == 0 && trie_bytes > 0, where,
          "the character map says ", trie_bytes, " bytes of trie, the file has ", blob.size());
  units_.reserve(trie_bytes / 4);
  for (std::size_t at = 0; at < trie_bytes; at += 4) units_.push_back(read_u32(blob.substr(at)));
  replacements_ = blob.substr(trie_bytes);
}

Charsmap::Replacement Charsmap::longest(std::string_view text) const {
  Replacement best;
  if (units_.empty()) return best;
  std::size_t position = offset_of(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    position ^= byte;
    if (byte == 0 || position >= units_.size() || label_of(units_[position]) != byte) break;
    const std::uint32_t unit = units_[position];
    position ^= offset_of(unit);
    if (!has_leaf(unit)) continue;
    if (position >= units_.size()) break;
    const std::uint32_t start = value_of(units_[position]);
    if (start >= replacements_.size()) break;
    const std::size_t end = replacements_.find('\0', start);
    best = {i + 1, std::string_view(replacements_).substr(start, end - start)};
  }
  return best;
}

}  // namespace attar::tokenize
