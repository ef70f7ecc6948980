// The searching quantizers: groups by block_search, then the scales of a super-block as codes of
// their own, then all codes again on the grid that the block will hold.
#include <cmath>
#include <cstring>

#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/ggml_blocks/block_parts.h"

namespace attar::kernels {
namespace {

constexpr int kChunk = 16;  // blocks at a time: whole vectors of groups in every variant

// How ggml searches the groups of a type.
struct Recipe {
  GroupFit fit;
  int top;
  float first, stride;
  int tries;
};

Recipe recipe_of(GgmlBlock type) {
  switch (type) {
    case GgmlBlock::q2_k:
      return {GroupFit::affine_absolute, 3, -0.5f, 0.1f, 15};
    case GgmlBlock::q4_k:
      return {GroupFit::affine, 15, -1.0f, 0.1f, 20};
    case GgmlBlock::q5_k:
      return {GroupFit::affine, 31, -0.5f, 0.1f, 15};
    case GgmlBlock::q3_k:
      return {GroupFit::signed_descent, 4, 0, 0, 0};
    case GgmlBlock::q6_k:
      return {GroupFit::signed_codes, 32, 0, 0, 0};
    default:
      return {GroupFit::table, 0, 0, 0, 0};
  }
}

// What an error costs: Q2_K |x|, Q4_K and Q5_K |x| + the group's root mean square, else x^2.
void set_prices(GgmlBlock type, const float* x, std::int64_t groups, int size, float* prices) {
  for (std::int64_t g = 0; g < groups; ++g, x += size, prices += size) {
    if (type == GgmlBlock::q2_k) {
      for (int e = 0; e < size; ++e) prices[e] = std::fabs(x[e]);
    } else if (type == GgmlBlock::q4_k || type == GgmlBlock::q5_k) {
      float squares = 0;
      for (int e = 0; e < size; ++e) squares += x[e] * x[e];
      const float root = std::sqrt(squares / static_cast<float>(size));
      for (int e = 0; e < size; ++e) prices[e] = root + std::fabs(x[e]);
    } else {
      for (int e = 0; e < size; ++e) prices[e] = x[e] * x[e];
    }
  }
}

// What the search found of one super-block.
struct Found {
  const float* values;
  const float* scale;
  const float* minimum;
  const std::uint8_t* codes;
};

float largest_of(const float* x, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// The x of largest magnitude, the first of several.
float extreme_of(const float* x, int count) {
  float magnitude = 0, extreme = 0;
  for (int i = 0; i < count; ++i) {
    if (std::fabs(x[i]) > magnitude) {
      magnitude = std::fabs(x[i]);
      extreme = x[i];
    }
  }
  return extreme;
}

void code_parts(const float* x, int count, float largest, int top, std::int8_t* codes) {
  const float inverse = largest > 0 ? static_cast<float>(top) / largest : 0.0f;
  for (int i = 0; i < count; ++i) {
    const int code = nearest_whole(inverse * x[i]) & 0xff;  // a byte, as ggml keeps it
    codes[i] = static_cast<std::int8_t>(code < top ? code : top);
  }
}

// Q2_K, Q4_K, Q5_K.
void finish_affine(const GgmlBlockInfo& info, const Found& found, BlockParts& parts) {
  const int groups = info.elements / info.group, top = info.highest_part;
  const float scale = largest_of(found.scale, groups), minimum = largest_of(found.minimum, groups);
  code_parts(found.scale, groups, scale, top, parts.a);
  code_parts(found.minimum, groups, minimum, top, parts.b);
  parts.d = as_f16(scale / static_cast<float>(top));
  parts.m = as_f16(minimum / static_cast<float>(top));
  for (int g = 0; g < groups; ++g) {
    const float step = parts.d * static_cast<float>(parts.a[g]);
    const float shift = parts.m * static_cast<float>(parts.b[g]);
    const float* x = found.values + g * info.group;
    std::uint8_t* codes = parts.codes + g * info.group;
    if (step == 0) {
      std::memcpy(codes, found.codes + g * info.group, static_cast<std::size_t>(info.group));
      continue;
    }
    for (int e = 0; e < info.group; ++e) {
      codes[e] =
          static_cast<std::uint8_t>(limited(nearest_whole((x[e] + shift) / step), 0, info.top));
    }
  }
}

// Q3_K, Q6_K.
void finish_signed(const GgmlBlockInfo& info, const Found& found, BlockParts& parts) {
  const int groups = info.elements / info.group;
  const float extreme = extreme_of(found.scale, groups);
  const bool wide = info.top == 63;
  if (wide ? std::fabs(extreme) < 1e-15f : extreme == 0) {
    std::memset(parts.codes, wide ? 0 : info.middle, sizeof parts.codes);
    std::memset(parts.a, wide ? 0 : info.lowest_part, sizeof parts.a);
    parts.d = 0;
    if (wide) return;
    // Codes of the search stand where a scale of 0 leaves them without meaning.
    std::memcpy(parts.codes, found.codes, sizeof parts.codes);
    return;
  }
  const float inverse = static_cast<float>(info.lowest_part) / extreme;
  parts.d = as_f16(1 / inverse);
  for (int g = 0; g < groups; ++g) {
    parts.a[g] = static_cast<std::int8_t>(
        limited(nearest_whole(inverse * found.scale[g]), info.lowest_part, info.highest_part));
    const float step = parts.d * static_cast<float>(parts.a[g]);
    const float* x = found.values + g * info.group;
    std::uint8_t* codes = parts.codes + g * info.group;
    if (step == 0) {
      std::memcpy(codes, found.codes + g * info.group, static_cast<std::size_t>(info.group));
      continue;
    }
    for (int e = 0; e < info.group; ++e) {
      const int code = limited(nearest_whole(x[e] / step), -info.middle, info.middle - 1);
      codes[e] = static_cast<std::uint8_t>(code + info.middle);
    }
  }
}

void code_by_table(const float* x, float scale, std::uint8_t* codes) {
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  for (int e = 0; e < 32; ++e) {
    codes[e] = static_cast<std::uint8_t>(nearest_of_table16(inverse * x[e]));
  }
}

void finish_iq4_xs(const Found& found, BlockParts& parts) {
  const float d = -extreme_of(found.scale, 8) / 32;
  const float inverse = d != 0 ? 1 / d : 0.0f;
  parts.d = d;
  for (int g = 0; g < 8; ++g) {
    const int a = limited(nearest_whole(inverse * found.scale[g]), -32, 31);
    parts.a[g] = static_cast<std::int8_t>(a);
    code_by_table(found.values + 32 * g, d * static_cast<float>(a), parts.codes + 32 * g);
  }
}

void finish(GgmlBlock type, const Found& found, BlockParts& parts) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  if (type == GgmlBlock::iq4_nl) {
    parts.d = found.scale[0];
    return code_by_table(found.values, parts.d, parts.codes);
  }
  if (type == GgmlBlock::iq4_xs) return finish_iq4_xs(found, parts);
  if (info.minimum) return finish_affine(info, found, parts);
  finish_signed(info, found, parts);
}

}  // namespace

void quantize_super(GgmlBlock type, const float* values, std::int64_t blocks, std::uint8_t* to) {
  const GgmlBlockInfo& info = ggml_block_info(type);
  const Recipe recipe = recipe_of(type);
  const int groups = info.elements / info.group;
  float prices[kChunk * kGgmlSuperElements];
  float scale[kChunk * 16], minimum[kChunk * 16];
  std::uint8_t codes[kChunk * kGgmlSuperElements];
  BlockParts parts;
  for (std::int64_t first = 0; first < blocks; first += kChunk) {
    const std::int64_t count = blocks - first < kChunk ? blocks - first : kChunk;
    const float* x = values + first * info.elements;
    set_prices(type, x, count * groups, info.group, prices);
    block_search({.fit = recipe.fit,
                  .size = info.group,
                  .top = recipe.top,
                  .first = recipe.first,
                  .stride = recipe.stride,
                  .tries = recipe.tries,
                  .values = x,
                  .prices = prices,
                  .scale = scale,
                  .minimum = minimum,
                  .codes = codes},
                 count * groups);
    for (std::int64_t b = 0; b < count; ++b) {
      finish(type,
             {x + b * info.elements, scale + b * groups, minimum + b * groups,
              codes + b * info.elements},
             parts);
      write_block(type, parts, to + (first + b) * info.bytes);
    }
  }
}

}  // namespace attar::kernels
