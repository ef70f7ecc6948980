// The 32-element blocks of GGUF files, bytes as ggml writes and reads them.
//
//   Q8_0  34 bytes: f16 d, i8 q[32]            value d * q
//   Q4_0  18 bytes: f16 d, u8 qs[16]           value d * (nibble - 8)
//   Q4_1  20 bytes: f16 d, f16 m, u8 qs[16]    value d * nibble + m
//
// Element e of a 4-bit block is the low nibble of qs[e] for e < 16, the high one of qs[e - 16]
// otherwise. Everything is little-endian and unaligned.
#pragma once

#include <cstdint>

namespace attar::kernels {

enum class GgmlBlock : std::uint8_t { q8_0, q4_0, q4_1 };

inline constexpr std::int64_t kGgmlBlockElements = 32;

// 34, 18, 20.
std::int64_t ggml_block_bytes(GgmlBlock type);

// count elements (a multiple of 32) <-> count / 32 blocks. Both throw std::invalid_argument if
// count is negative or not a multiple of 32.
void ggml_dequantize(GgmlBlock type, const void* blocks, std::int64_t count, float* out);

// Byte for byte what ggml's own reference quantizer writes, for finite values. A value that is not
// finite spoils its own block and nothing else.
void ggml_quantize(GgmlBlock type, const float* values, std::int64_t count, void* blocks);

// Blocks from codes and scales that a solver has already chosen.
//
//   codes    [count] u8: the nibble for Q4_0 (value + 8) and Q4_1; for Q8_0 the value + 128
//   scale    [count / 32]; rounded to f16
//   minimum  [count / 32]; rounded to f16; read for Q4_1 only, else may be nullptr
void ggml_pack(GgmlBlock type, const std::uint8_t* codes, const float* scale, const float* minimum,
               std::int64_t count, void* blocks);

}  // namespace attar::kernels
