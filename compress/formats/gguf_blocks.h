// Between QuantizedWeight and the block types of GGUF.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/weight.h"
#include "compress/io/ggml_type.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"

namespace attar {

// How a block type holds a grid.
enum class Fit {
  kExact,           // every value the same
  kRoundedMinimum,  // codes and scales the same; -scale * zero rounded to float16 (Q4_1, Q5_1)
};

bool is_block_type(io::GgmlType type);                               // that attar reads and writes
std::optional<kernels::GgmlBlock> ggml_block_of(io::GgmlType type);  // empty for the others

// Whether `type` can hold a grid by its scheme alone (scales in float16). A kInteger grid of 8 bits
// in Q8_0 depends on its codes: not promised here. A block grid fits its own type only.
std::optional<Fit> fit(io::GgmlType type, const QuantScheme& scheme, std::int64_t columns);

// The smallest type that fits; Q4_1 and Q5_1 with rounded minima before Q8_0.
std::optional<io::GgmlType> smallest_fit(const QuantScheme& scheme, std::int64_t columns);

// The codes of `weight` as blocks, row after row; empty when the type cannot keep them (a scale or
// minimum beyond float16, a code outside of the type).
std::optional<std::vector<std::byte>> keep_codes(io::GgmlType type, const QuantizedWeight& weight);

// The reference quantizer of a block type, or plain rounding for F32, F16, BF16.
//   values  [O, I] float32
std::vector<std::byte> encode(io::GgmlType type, const at::Tensor& values);

// Of a block type, rounded for the least squared error weighted by `column_weights` [I] double
// (diag H, an importance matrix).
std::vector<std::byte> encode_weighted(io::GgmlType type, const at::Tensor& values,
                                       const at::Tensor& column_weights);

// Values of encoded bytes, [O, I] float32.
at::Tensor decode(io::GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                  std::int64_t in);

// Blocks as a QuantizedWeight; is_block_type only.
QuantizedWeight unpack_blocks(io::GgmlType type, std::span<const std::byte> bytes, std::int64_t out,
                              std::int64_t in);
QuantScheme scheme_of(io::GgmlType type);

}  // namespace attar
