// Between QuantizedWeight and the block types of GGUF.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/weight.h"
#include "compress/io/ggml_type.h"

namespace attar {

// How a block type holds a grid.
enum class Fit {
  kExact,           // every value the same
  kRoundedMinimum,  // codes and scales the same; -scale * zero rounded to float16 (Q4_1)
};

// Whether `type` can hold a grid by its scheme alone (scales in float16). A kInteger grid of 8 bits
// in Q8_0 depends on its codes: not promised here.
std::optional<Fit> fit(io::GgmlType type, const QuantScheme& scheme, std::int64_t columns);

// The smallest of Q4_0, Q4_1, Q8_0 that fits; Q4_1 with rounded minima before Q8_0.
std::optional<io::GgmlType> smallest_fit(const QuantScheme& scheme, std::int64_t columns);

// The codes of `weight` as blocks, row after row; empty when the type cannot keep them (a scale or
// minimum beyond float16, a code outside of the type).
std::optional<std::vector<std::byte>> keep_codes(io::GgmlType type, const QuantizedWeight& weight);

// The reference quantizer of a block type, or plain rounding for F32, F16, BF16.
//   values  [O, I] float32
std::vector<std::byte> encode(io::GgmlType type, const at::Tensor& values);

// Values of encoded bytes, [O, I] float32.
at::Tensor decode(io::GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                  std::int64_t in);

// Blocks as a QuantizedWeight. Q8_0, Q4_0, Q4_1 only.
QuantizedWeight unpack_blocks(io::GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                              std::int64_t in);
QuantScheme scheme_of(io::GgmlType type);

}  // namespace attar
