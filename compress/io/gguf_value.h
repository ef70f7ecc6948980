// Metadata values of GGUF files as they lie in a mapped file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

namespace attar::io {

// As numbered in the file.
enum class GgufValueType : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};

std::string_view gguf_value_type_name(GgufValueType type);

// An array of fixed-size elements (packed little-endian in `bytes`, not aligned) or of strings.
// Arrays of arrays are refused on reading, as llama.cpp does.
struct GgufArray {
  GgufValueType element = GgufValueType::u8;
  std::uint64_t count = 0;
  std::span<const std::byte> bytes;       // all elements as stored
  std::vector<std::string_view> strings;  // element == string only
};

// The alternative follows the stored type.
using GgufValue = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t,
                               std::uint32_t, std::int32_t, float, bool, std::string_view,
                               GgufArray, std::uint64_t, std::int64_t, double>;

// One key of the metadata. Views lie in the mapped file.
struct GgufEntry {
  std::string_view key;
  GgufValueType type = GgufValueType::u8;
  GgufValue value;
  std::span<const std::byte> raw;  // the value as stored, without its type number
};

}  // namespace attar::io
