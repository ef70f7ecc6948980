#include "compress/kernels/ggml_blocks/ggml_blocks.h"

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/encode_blocks/encode_blocks.h"
#include "compress/kernels/ggml_blocks/block_parts.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

std::int64_t block_count(GgmlBlock type, std::int64_t count) {
  const int elements = ggml_block_info(type).elements;
  if (count < 0 || count % elements != 0) {
    throw std::invalid_argument("[ggml_blocks] count must be a multiple of " +
                                std::to_string(elements) + ", got " + std::to_string(count));
  }
  return count / elements;
}

// Calls body(first, last) on ranges of blocks.
template <class Body>
void for_blocks(GgmlBlock type, std::int64_t count, const Body& body) {
  for_row_ranges(block_count(type, count), ggml_block_info(type).elements, body);
}

// Each product and sum rounded, in ggml's order.
void values_of(const GgmlBlockInfo& info, const BlockParts& parts, float* out) {
  const bool super = info.elements == kGgmlSuperElements;
  for (int first = 0, g = 0; first < info.elements; first += info.group, ++g) {
    const float scale = super ? parts.d * static_cast<float>(parts.a[g]) : parts.d;
    const float shift = super ? parts.m * static_cast<float>(parts.b[g]) : -parts.m;
    const std::uint8_t* codes = parts.codes + first;
    float* to = out + first;
    if (info.table) {
      for (int e = 0; e < info.group; ++e) to[e] = scale * static_cast<float>(kTable16[codes[e]]);
    } else if (info.minimum) {
      for (int e = 0; e < info.group; ++e) to[e] = scale * static_cast<float>(codes[e]) - shift;
    } else {
      for (int e = 0; e < info.group; ++e) {
        to[e] = scale * static_cast<float>(codes[e] - info.middle);
      }
    }
  }
}

// Of blocks that encode_blocks could not tell it of: NaN if one difference is, else the largest.
float worst_of(GgmlBlock type, const float* values, const std::uint8_t* blocks,
               std::int64_t count) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  float worst = 0, back[kGgmlSuperElements];
  BlockParts parts;
  for (std::int64_t b = 0; b < count; ++b) {
    read_block(type, blocks + b * info.bytes, parts);
    values_of(info, parts, back);
    for (int e = 0; e < info.elements; ++e) {
      const float difference = std::fabs(back[e] - values[b * info.elements + e]);
      if (!(difference <= worst)) worst = difference;
      if (std::isnan(worst)) return worst;
    }
  }
  return worst;
}

}  // namespace

void ggml_dequantize(GgmlBlock type, const void* blocks, std::int64_t count, float* out) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  const auto* from = static_cast<const std::uint8_t*>(blocks);
  for_blocks(type, count, [&](std::int64_t first, std::int64_t last) {
    BlockParts parts;
    for (std::int64_t b = first; b < last; ++b) {
      read_block(type, from + b * info.bytes, parts);
      values_of(info, parts, out + b * info.elements);
    }
  });
}

float ggml_quantize(GgmlBlock type, const float* values, std::int64_t count, void* blocks) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  auto* to = static_cast<std::uint8_t*>(blocks);
  std::atomic<std::uint32_t> worst = 0;  // bits of numbers >= 0 stand in their order, NaN last
  for_blocks(type, count, [&](std::int64_t first, std::int64_t last) {
    const float* from = values + first * info.elements;
    std::uint8_t* into = to + first * info.bytes;
    float found = encode_blocks({type, from, into}, last - first);
    if (!std::isfinite(found)) found = worst_of(type, from, into, last - first);
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(found) & 0x7fffffff;
    std::uint32_t before = worst;
    while (before < bits && !worst.compare_exchange_weak(before, bits)) {
    }
  });
  return std::bit_cast<float>(worst.load());
}

void ggml_pack(GgmlBlock type, const std::uint8_t* codes, const float* scale, const float* minimum,
               std::int64_t count, void* blocks) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  auto* to = static_cast<std::uint8_t*>(blocks);
  for_blocks(type, count, [&](std::int64_t first, std::int64_t last) {
    BlockParts parts;
    for (std::int64_t b = first; b < last; ++b) {
      std::memcpy(parts.codes, codes + b * info.elements, static_cast<std::size_t>(info.elements));
      parts.d = scale[b];
      parts.m = minimum ? minimum[b] : 0.0f;
      write_block(type, parts, to + b * info.bytes);
    }
  });
}

void ggml_pack(GgmlBlock type, const GgmlParts& all, std::int64_t count, void* blocks) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  const int groups = info.elements / info.group;
  auto* to = static_cast<std::uint8_t*>(blocks);
  for_blocks(type, count, [&](std::int64_t first, std::int64_t last) {
    BlockParts parts = {};
    for (std::int64_t b = first; b < last; ++b) {
      std::memcpy(parts.codes, all.codes + b * info.elements,
                  static_cast<std::size_t>(info.elements));
      parts.d = all.d[b];
      if (info.minimum) parts.m = all.m[b];
      for (int g = 0; all.a != nullptr && g < groups; ++g) {
        parts.a[g] = all.a[b * groups + g];
        if (info.minimum) parts.b[g] = all.b[b * groups + g];
      }
      write_block(type, parts, to + b * info.bytes);
    }
  });
}

void ggml_unpack(GgmlBlock type, const void* blocks, std::int64_t count, const GgmlParts& all) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  const int groups = info.elements / info.group;
  const auto* from = static_cast<const std::uint8_t*>(blocks);
  for_blocks(type, count, [&](std::int64_t first, std::int64_t last) {
    BlockParts parts;
    for (std::int64_t b = first; b < last; ++b) {
      read_block(type, from + b * info.bytes, parts);
      std::memcpy(all.codes + b * info.elements, parts.codes,
                  static_cast<std::size_t>(info.elements));
      all.d[b] = parts.d;
      if (info.minimum) all.m[b] = parts.m;
      for (int g = 0; all.a != nullptr && g < groups; ++g) {
        all.a[b * groups + g] = parts.a[g];
        if (info.minimum) all.b[b * groups + g] = parts.b[g];
      }
    }
  });
}

}  // namespace attar::kernels
