// The plain element types of tensors in files, without LibTorch.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace attar::io {

// In the order in which the safetensors reference sorts them: ascending alignment.
enum class ElementType : std::uint8_t {
  bool8,
  f4,
  f6_e2m3,
  f6_e3m2,
  u8,
  i8,
  f8_e5m2,
  f8_e4m3,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  i16,
  u16,
  f16,
  bf16,
  i32,
  u32,
  f32,
  c64,
  f64,
  i64,
  u64,
};

// Bits of one element: 4 and 6 for f4, f6_*; whole bytes for all others.
int element_bits(ElementType type);

// Bytes of one element; throws BadInput for f4 and f6_*, whose elements share bytes.
int element_bytes(ElementType type);

// "BF16", "F8_E4M3", ...
std::string_view safetensors_name(ElementType type);
std::optional<ElementType> element_type_from_safetensors(std::string_view name);

// Bytes of a dense tensor; empty when a dimension is negative, the count overflows 64 bits, or the
// bits do not fill whole bytes. Rank 0 is one element.
std::optional<std::uint64_t> tensor_bytes(ElementType type, std::span<const std::int64_t> shape);

}  // namespace attar::io
