#include "compress/kernels/ggml_blocks/ggml_blocks.h"

#include <cstring>
#include <stdexcept>
#include <string>

#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/ggml_blocks/block_parts.h"
#include "compress/kernels/small_blocks/small_blocks.h"
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

// Q8_0, Q4_0, Q4_1, Q5_0, Q5_1.
void quantize_small(GgmlBlock type, const float* values, std::int64_t blocks, std::uint8_t* to) {
  constexpr int kChunk = 16;
  const GgmlBlockInfo& info = ggml_block_info(type);
  const SmallScale scale = type == GgmlBlock::q8_0 ? SmallScale::magnitude
                           : info.minimum          ? SmallScale::range
                                                   : SmallScale::extreme;
  float d[kChunk], m[kChunk];
  std::uint8_t codes[32 * kChunk];
  BlockParts parts;
  for (std::int64_t first = 0; first < blocks; first += kChunk) {
    const std::int64_t count = blocks - first < kChunk ? blocks - first : kChunk;
    small_blocks({.scale = scale,
                  .top = info.top,
                  .values = values + 32 * first,
                  .d = d,
                  .m = m,
                  .codes = codes},
                 count);
    for (std::int64_t b = 0; b < count; ++b) {
      std::memcpy(parts.codes, codes + 32 * b, 32);
      parts.d = d[b];
      parts.m = m[b];
      write_block(type, parts, to + (first + b) * info.bytes);
    }
  }
}

bool is_searched(GgmlBlock type) {
  return type == GgmlBlock::iq4_nl || ggml_block_info(type).elements == kGgmlSuperElements;
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

void ggml_quantize(GgmlBlock type, const float* values, std::int64_t count, void* blocks) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  auto* to = static_cast<std::uint8_t*>(blocks);
  for_blocks(type, count, [&](std::int64_t first, std::int64_t last) {
    if (is_searched(type)) {
      return quantize_super(type, values + first * info.elements, last - first,
                            to + first * info.bytes);
    }
    quantize_small(type, values + first * info.elements, last - first, to + first * info.bytes);
  });
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
