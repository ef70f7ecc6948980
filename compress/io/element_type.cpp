#include "compress/io/element_type.h"

#include <array>

#include "compress/core/errors.h"

namespace attar::io {
namespace {

struct Row {
  ElementType type;
  std::string_view name;
  int bits;
};

constexpr std::array<Row, 22> kRows{{
    {ElementType::bool8, "BOOL", 8},
    {ElementType::f4, "F4", 4},
    {ElementType::f6_e2m3, "F6_E2M3", 6},
    {ElementType::f6_e3m2, "F6_E3M2", 6},
    {ElementType::u8, "U8", 8},
    {ElementType::i8, "I8", 8},
    {ElementType::f8_e5m2, "F8_E5M2", 8},
    {ElementType::f8_e4m3, "F8_E4M3", 8},
    {ElementType::f8_e8m0, "F8_E8M0", 8},
    {ElementType::f8_e4m3fnuz, "F8_E4M3FNUZ", 8},
    {ElementType::f8_e5m2fnuz, "F8_E5M2FNUZ", 8},
    {ElementType::i16, "I16", 16},
    {ElementType::u16, "U16", 16},
    {ElementType::f16, "F16", 16},
    {ElementType::bf16, "BF16", 16},
    {ElementType::i32, "I32", 32},
    {ElementType::u32, "U32", 32},
    {ElementType::f32, "F32", 32},
    {ElementType::c64, "C64", 64},
    {ElementType::f64, "F64", 64},
    {ElementType::i64, "I64", 64},
    {ElementType::u64, "U64", 64},
}};

const Row& row(ElementType type) {
  const auto index = static_cast<std::size_t>(type);
  require(index < kRows.size(), "element type", "unknown element type number ", index);
  return kRows[index];
}

static_assert([] {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (static_cast<std::size_t>(kRows[i].type) != i) return false;
  }
  return true;
}());

}  // namespace

int element_bits(ElementType type) { return row(type).bits; }

int element_bytes(ElementType type) {
  const Row& found = row(type);
  require(found.bits % 8 == 0, "element type", "elements of type ", found.name,
          " share bytes; treat the tensor as raw bytes");
  return found.bits / 8;
}

std::string_view safetensors_name(ElementType type) { return row(type).name; }

std::optional<ElementType> element_type_from_safetensors(std::string_view name) {
  for (const Row& candidate : kRows) {
    if (candidate.name == name) return candidate.type;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> tensor_bytes(ElementType type, std::span<const std::int64_t> shape) {
  std::uint64_t bits = static_cast<std::uint64_t>(row(type).bits);
  // A zero dimension makes the tensor empty, but the reference still refuses an overflow before it.
  for (const std::int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bits, static_cast<std::uint64_t>(extent), &bits)) {
      return std::nullopt;
    }
  }
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

}  // namespace attar::io
