#include "compress/kernels/ggml_blocks/ggml_blocks.h"

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "compress/kernels/convert/f16.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

constexpr int kElements = static_cast<int>(kGgmlBlockElements);

float read_f16(const std::uint8_t* from) {
  return f16_value(static_cast<std::uint16_t>(from[0] | from[1] << 8));
}

void write_f16(float value, std::uint8_t* to) {
  const std::uint16_t half = f16_bits(value);
  to[0] = static_cast<std::uint8_t>(half & 0xff);
  to[1] = static_cast<std::uint8_t>(half >> 8);
}

// What a block holds: codes (Q8_0: value + 128), a scale and a minimum.
struct Block {
  std::uint8_t codes[kElements];
  float scale;
  float minimum;
};

void write_block(GgmlBlock type, const std::uint8_t* codes, float scale, float minimum,
                 std::uint8_t* to) {
  write_f16(scale, to);
  to += 2;
  if (type == GgmlBlock::q8_0) {
    for (int e = 0; e < kElements; ++e) to[e] = codes[e] ^ 0x80;
    return;
  }
  if (type == GgmlBlock::q4_1) {
    write_f16(minimum, to);
    to += 2;
  }
  for (int e = 0; e < kElements / 2; ++e) {
    const int high = codes[e + kElements / 2] & 15;
    to[e] = static_cast<std::uint8_t>((codes[e] & 15) | high << 4);
  }
}

void read_block(GgmlBlock type, const std::uint8_t* from, float* out) {
  const float scale = read_f16(from);
  from += 2;
  if (type == GgmlBlock::q8_0) {
    for (int e = 0; e < kElements; ++e) {
      out[e] = scale * static_cast<float>(static_cast<std::int8_t>(from[e]));
    }
    return;
  }
  float minimum = 0;
  int zero = 8;
  if (type == GgmlBlock::q4_1) {
    minimum = read_f16(from);
    zero = 0;
    from += 2;
  }
  for (int e = 0; e < kElements / 2; ++e) {
    out[e] = scale * static_cast<float>((from[e] & 15) - zero);
    out[e + kElements / 2] = scale * static_cast<float>((from[e] >> 4) - zero);
  }
  if (type == GgmlBlock::q4_1) {
    for (int e = 0; e < kElements; ++e) out[e] += minimum;
  }
}

// The whole part of x, kept inside [0, top]; 0 for NaN. The bounds bite only when the inverse of a
// subnormal scale overflows, or on input that is not finite.
std::uint8_t code_of(float x, float top) {
  const float inside = x > 0 ? (x < top ? x : top) : 0.0f;
  return static_cast<std::uint8_t>(inside);
}

// The nearest whole number, halves away from zero, inside [-127, 127]; 0 for NaN. For such values
// the same as std::round, which the compiler does not vectorise.
int nearest_code(float x) {
  const float size = std::fabs(x);
  const float inside = size > 0 ? (size < 127 ? size : 127.0f) : 0.0f;
  const int whole = static_cast<int>(inside);
  const int nearest = whole + (inside - static_cast<float>(whole) >= 0.5f ? 1 : 0);
  return x < 0 ? -nearest : nearest;
}

// scale = largest |x| / 127; codes round half away from zero.
Block choose_q8_0(const float* x) {
  Block block = {};
  float largest = 0;
  for (int e = 0; e < kElements; ++e) {
    const float size = std::fabs(x[e]);
    largest = size > largest ? size : largest;
  }
  block.scale = largest / 127;
  const float inverse = block.scale != 0 ? 1 / block.scale : 0;
  for (int e = 0; e < kElements; ++e) {
    block.codes[e] = static_cast<std::uint8_t>(nearest_code(x[e] * inverse) + 128);
  }
  return block;
}

// scale = x / -8 for the x of largest magnitude (the first on ties), with its sign.
Block choose_q4_0(const float* x) {
  Block block = {};
  float magnitude = 0;
  float extreme = 0;
  for (int e = 0; e < kElements; ++e) {
    if (magnitude < std::fabs(x[e])) {
      magnitude = std::fabs(x[e]);
      extreme = x[e];
    }
  }
  block.scale = extreme / -8;
  const float inverse = block.scale != 0 ? 1 / block.scale : 0;
  for (int e = 0; e < kElements; ++e) {
    block.codes[e] = code_of(x[e] * inverse + 8.5f, 15);
  }
  return block;
}

// scale = (max - min) / 15.
Block choose_q4_1(const float* x) {
  Block block = {};
  float lowest = x[0];
  float highest = x[0];
  for (int e = 1; e < kElements; ++e) {
    lowest = x[e] < lowest ? x[e] : lowest;
    highest = x[e] > highest ? x[e] : highest;
  }
  block.minimum = lowest;
  block.scale = (highest - lowest) / 15;
  const float inverse = block.scale != 0 ? 1 / block.scale : 0;
  for (int e = 0; e < kElements; ++e) {
    block.codes[e] = code_of((x[e] - lowest) * inverse + 0.5f, 15);
  }
  return block;
}

Block choose(GgmlBlock type, const float* x) {
  switch (type) {
    case GgmlBlock::q8_0:
      return choose_q8_0(x);
    case GgmlBlock::q4_0:
      return choose_q4_0(x);
    default:
      return choose_q4_1(x);
  }
}

std::int64_t block_count(std::int64_t count) {
  if (count < 0 || count % kGgmlBlockElements != 0) {
    throw std::invalid_argument("[ggml_blocks] count must be a multiple of 32, got " +
                                std::to_string(count));
  }
  return count / kGgmlBlockElements;
}

template <class Body>
void for_blocks(std::int64_t count, const Body& body) {
  for_row_ranges(block_count(count), kElements, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t b = begin; b < end; ++b) body(b);
  });
}

}  // namespace

std::int64_t ggml_block_bytes(GgmlBlock type) {
  switch (type) {
    case GgmlBlock::q8_0:
      return 34;
    case GgmlBlock::q4_0:
      return 18;
    default:
      return 20;
  }
}

void ggml_dequantize(GgmlBlock type, const void* blocks, std::int64_t count, float* out) {
  const std::int64_t bytes = ggml_block_bytes(type);
  const auto* from = static_cast<const std::uint8_t*>(blocks);
  for_blocks(count,
             [&](std::int64_t b) { read_block(type, from + b * bytes, out + b * kElements); });
}

void ggml_quantize(GgmlBlock type, const float* values, std::int64_t count, void* blocks) {
  const std::int64_t bytes = ggml_block_bytes(type);
  auto* to = static_cast<std::uint8_t*>(blocks);
  for_blocks(count, [&](std::int64_t b) {
    const Block block = choose(type, values + b * kElements);
    write_block(type, block.codes, block.scale, block.minimum, to + b * bytes);
  });
}

void ggml_pack(GgmlBlock type, const std::uint8_t* codes, const float* scale, const float* minimum,
               std::int64_t count, void* blocks) {
  const std::int64_t bytes = ggml_block_bytes(type);
  auto* to = static_cast<std::uint8_t*>(blocks);
  for_blocks(count, [&](std::int64_t b) {
    write_block(type, codes + b * kElements, scale[b], minimum ? minimum[b] : 0.0f, to + b * bytes);
  });
}

}  // namespace attar::kernels
