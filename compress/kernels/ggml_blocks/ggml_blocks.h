// The blocks of GGUF files, bytes as ggml writes and reads them.
//
//   type    bytes  elements  value of an element
//   Q8_0       34        32  d q             q a signed byte
//   Q4_0       18        32  d (q - 8)       Q5_0  22 bytes: d (q - 16)
//   Q4_1       20        32  d q + m         Q5_1  24 bytes
//   IQ4_NL     18        32  d T[q]          T 16 points, kTable16 of block_search.h
//   Q2_K       84       256  d a q - m b     a, b 4 bits for every 16 elements
//   Q3_K      110       256  d a (q - 4)     a 6 bits signed for every 16
//   Q4_K      144       256  d a q - m b     a, b 6 bits for every 32
//   Q5_K      176       256  d a q - m b     a, b 6 bits for every 32
//   Q6_K      210       256  d a (q - 32)    a 8 bits signed for every 16
//   IQ4_XS    136       256  d a T[q]        a 6 bits signed for every 32
//
// d and m are float16. Everything is little-endian and unaligned.
#pragma once

#include <cstdint>

namespace attar::kernels {

enum class GgmlBlock : std::uint8_t {
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  iq4_nl,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_xs
};

inline constexpr std::int64_t kGgmlBlockElements = 32;  // of the types without sub-blocks
inline constexpr std::int64_t kGgmlSuperElements = 256;

struct GgmlBlockInfo {
  int elements;  // 32 or 256
  int bytes;
  int group;        // elements that share a scale: 32 or 16
  int top;          // the largest code
  int middle;       // what is subtracted from a code; 0 for types with minima and tables
  bool minimum;     // has m (and b)
  bool table;       // codes are indices of kTable16
  int lowest_part;  // of a, for super-blocks
  int highest_part;
};
const GgmlBlockInfo& ggml_block_info(GgmlBlock type);
inline std::int64_t ggml_block_bytes(GgmlBlock type) { return ggml_block_info(type).bytes; }

// count elements <-> blocks. All functions throw std::invalid_argument if count is negative or not
// a multiple of the block's elements.
void ggml_dequantize(GgmlBlock type, const void* blocks, std::int64_t count, float* out);

// Byte for byte what ggml's own reference quantizer writes without an importance matrix, for finite
// values below about 1e18 in magnitude. A value that is not finite spoils its own block and nothing
// else. Gives the largest |value of a block - value|, NaN if one of them is NaN. Neither depends on
// threads or instruction set.
float ggml_quantize(GgmlBlock type, const float* values, std::int64_t count, void* blocks);

// Blocks of 32 from codes and scales that a solver has already chosen.
//
//   codes    [count] u8: 0 .. top (Q8_0: value + 128)
//   scale    [count / 32]; rounded to f16
//   minimum  [count / 32]; rounded to f16; read for Q4_1 and Q5_1 only, else may be nullptr
void ggml_pack(GgmlBlock type, const std::uint8_t* codes, const float* scale, const float* minimum,
               std::int64_t count, void* blocks);

// What `count` elements of any type hold. Members that a type does not have may be null.
//   codes [count];  d, m [count / elements], float16 values;  a, b [count / group]
struct GgmlParts {
  std::uint8_t* codes;
  float* d;
  float* m;
  std::int8_t* a;
  std::int8_t* b;
};
void ggml_unpack(GgmlBlock type, const void* blocks, std::int64_t count, const GgmlParts& parts);
void ggml_pack(GgmlBlock type, const GgmlParts& parts, std::int64_t count, void* blocks);

}  // namespace attar::kernels
