#include "compress/io/ggml_type.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "compress/core/errors.h"

namespace attar::io {
namespace {

constexpr std::array<GgmlTypeInfo, 31> kTypes{{
    {GgmlType::f32, "F32", 1, 4},
    {GgmlType::f16, "F16", 1, 2},
    {GgmlType::q4_0, "Q4_0", 32, 18},
    {GgmlType::q4_1, "Q4_1", 32, 20},
    {GgmlType::q5_0, "Q5_0", 32, 22},
    {GgmlType::q5_1, "Q5_1", 32, 24},
    {GgmlType::q8_0, "Q8_0", 32, 34},
    {GgmlType::q2_k, "Q2_K", 256, 84},
    {GgmlType::q3_k, "Q3_K", 256, 110},
    {GgmlType::q4_k, "Q4_K", 256, 144},
    {GgmlType::q5_k, "Q5_K", 256, 176},
    {GgmlType::q6_k, "Q6_K", 256, 210},
    {GgmlType::iq2_xxs, "IQ2_XXS", 256, 66},
    {GgmlType::iq2_xs, "IQ2_XS", 256, 74},
    {GgmlType::iq3_xxs, "IQ3_XXS", 256, 98},
    {GgmlType::iq1_s, "IQ1_S", 256, 50},
    {GgmlType::iq4_nl, "IQ4_NL", 32, 18},
    {GgmlType::iq3_s, "IQ3_S", 256, 110},
    {GgmlType::iq2_s, "IQ2_S", 256, 82},
    {GgmlType::iq4_xs, "IQ4_XS", 256, 136},
    {GgmlType::i8, "I8", 1, 1},
    {GgmlType::i16, "I16", 1, 2},
    {GgmlType::i32, "I32", 1, 4},
    {GgmlType::i64, "I64", 1, 8},
    {GgmlType::f64, "F64", 1, 8},
    {GgmlType::iq1_m, "IQ1_M", 256, 56},
    {GgmlType::bf16, "BF16", 1, 2},
    {GgmlType::tq1_0, "TQ1_0", 256, 54},
    {GgmlType::tq2_0, "TQ2_0", 256, 66},
    {GgmlType::mxfp4, "MXFP4", 32, 17},
    {GgmlType::nvfp4, "NVFP4", 64, 36},
}};

struct Plain {
  GgmlType ggml;
  ElementType element;
};

constexpr std::array<Plain, 8> kPlain{{
    {GgmlType::f32, ElementType::f32},
    {GgmlType::f16, ElementType::f16},
    {GgmlType::bf16, ElementType::bf16},
    {GgmlType::f64, ElementType::f64},
    {GgmlType::i8, ElementType::i8},
    {GgmlType::i16, ElementType::i16},
    {GgmlType::i32, ElementType::i32},
    {GgmlType::i64, ElementType::i64},
}};

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) ==
           std::tolower(static_cast<unsigned char>(y));
  });
}

}  // namespace

std::span<const GgmlTypeInfo> ggml_types() { return kTypes; }

const GgmlTypeInfo* find_ggml_type(std::uint32_t number) {
  for (const GgmlTypeInfo& row : kTypes) {
    if (static_cast<std::uint32_t>(row.type) == number) return &row;
  }
  return nullptr;
}

const GgmlTypeInfo* find_ggml_type(std::string_view name) {
  for (const GgmlTypeInfo& row : kTypes) {
    if (equal_ignoring_case(row.name, name)) return &row;
  }
  return nullptr;
}

const GgmlTypeInfo& ggml_type_info(GgmlType type) {
  const GgmlTypeInfo* found = find_ggml_type(static_cast<std::uint32_t>(type));
  require(found != nullptr, "ggml type", "unknown type number ", static_cast<std::uint32_t>(type));
  return *found;
}

std::optional<std::uint64_t> ggml_tensor_bytes(GgmlType type, std::span<const std::int64_t> ne) {
  const GgmlTypeInfo& info = ggml_type_info(type);
  std::int64_t elements = 1;
  for (const std::int64_t extent : ne) {
    if (extent <= 0 || __builtin_mul_overflow(elements, extent, &elements)) return std::nullopt;
  }
  if ((ne.empty() ? 1 : ne[0]) % info.elements != 0) return std::nullopt;
  std::int64_t bytes = elements / info.elements;
  if (__builtin_mul_overflow(bytes, std::int64_t{info.bytes}, &bytes)) return std::nullopt;
  return static_cast<std::uint64_t>(bytes);
}

std::optional<ElementType> element_type_of(GgmlType type) {
  for (const Plain& pair : kPlain) {
    if (pair.ggml == type) return pair.element;
  }
  return std::nullopt;
}

std::optional<GgmlType> ggml_type_of(ElementType type) {
  for (const Plain& pair : kPlain) {
    if (pair.element == type) return pair.ggml;
  }
  return std::nullopt;
}

}  // namespace attar::io
