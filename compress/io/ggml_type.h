// The tensor types of GGUF files: their numbers and the size of their blocks.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "compress/io/element_type.h"

namespace attar::io {

enum class GgmlType : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
  nvfp4 = 40,
};

struct GgmlTypeInfo {
  GgmlType type;
  std::string_view name;   // "Q4_K", as llama.cpp prints it
  std::uint32_t elements;  // in one block; 1 for plain types
  std::uint32_t bytes;     // of one block
};

// All types above, ascending by number.
std::span<const GgmlTypeInfo> ggml_types();

// The row of a type in ggml_types(); nullptr for a number or a name that attar does not know.
// Names are compared without regard to case.
const GgmlTypeInfo* find_ggml_type(std::uint32_t number);
const GgmlTypeInfo* find_ggml_type(std::string_view name);
const GgmlTypeInfo& ggml_type_info(GgmlType type);  // throws BadInput for a value not in the enum

// Bytes of a tensor whose extents are `ne` (fastest first; rank 0 is one element); empty when an
// extent is not positive, ne[0] is no multiple of the block, or a product overflows 63 bits.
std::optional<std::uint64_t> ggml_tensor_bytes(GgmlType type, std::span<const std::int64_t> ne);

// Plain types only; empty for block types and for element types that GGUF has not.
std::optional<ElementType> element_type_of(GgmlType type);
std::optional<GgmlType> ggml_type_of(ElementType type);

}  // namespace attar::io
