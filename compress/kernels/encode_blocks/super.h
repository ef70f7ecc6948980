// The searching quantizers: groups by their scales, then the scales of a super-block as codes of
// their own, then all codes again on the grid that the block will hold.
#pragma once

#include "compress/kernels/block_search/body.h"
#include "compress/kernels/encode_blocks/encode_blocks.h"
#include "compress/kernels/encode_blocks/worst.h"
#include "compress/kernels/ggml_blocks/block_bytes.h"

namespace attar::kernels {

inline constexpr int kSearchGroups = 16;  // side by side: whole vectors in every variant

// How ggml searches the groups of a type.
constexpr BlockSearch recipe_of(GgmlBlock type) {
  BlockSearch recipe = {};
  recipe.fit = GroupFit::table;
  if (type == GgmlBlock::q2_k) {
    recipe = {.fit = GroupFit::affine_absolute, .top = 3, .first = -0.5f, .stride = 0.1f};
    recipe.tries = 15;
  } else if (type == GgmlBlock::q4_k) {
    recipe = {.fit = GroupFit::affine, .top = 15, .first = -1.0f, .stride = 0.1f, .tries = 20};
  } else if (type == GgmlBlock::q5_k) {
    recipe = {.fit = GroupFit::affine, .top = 31, .first = -0.5f, .stride = 0.1f, .tries = 15};
  } else if (type == GgmlBlock::q3_k) {
    recipe = {.fit = GroupFit::signed_descent, .top = 4};
  } else if (type == GgmlBlock::q6_k) {
    recipe = {.fit = GroupFit::signed_codes, .top = 32};
  }
  recipe.size = info_of(type).group;
  return recipe;
}

// What the search found of up to 16 groups; codes stay in the lanes.
template <class S>
struct Searched {
  GroupLanes<S> lanes[kSearchGroups / S::kWidth];
  float scale[kSearchGroups];
  float minimum[kSearchGroups];

  ATTAR_INLINE void copy_codes(const Searched& found, int group, int size, std::uint8_t* codes) {
    const float* q = found.lanes[group / S::kWidth].q + group % S::kWidth;
    for (int e = 0; e < size; ++e) {
      codes[e] = static_cast<std::uint8_t>(static_cast<int>(q[e * S::kWidth]));
    }
  }
};

// What an error costs: Q2_K |x|, Q4_K and Q5_K |x| + the group's root mean square, else x^2.
template <class S, GgmlBlock type>
ATTAR_INLINE void set_prices(GroupLanes<S>& lane) {
  constexpr int W = S::kWidth, size = info_of(type).group;
  if constexpr (type == GgmlBlock::q4_k || type == GgmlBlock::q5_k) {
    auto squares = S::broadcast(0.0f);
    for (int e = 0; e < size; ++e) {
      const auto x = S::load(lane.x + e * W);
      squares = S::add(squares, S::mul(x, x));
    }
    float root[W];
    S::store(root, S::div(squares, S::broadcast(static_cast<float>(size))));
    for (int k = 0; k < W; ++k) root[k] = __builtin_sqrtf(root[k]);
    const auto common = S::load(root);
    for (int e = 0; e < size; ++e) {
      S::store(lane.p + e * W, S::add(common, S::abs(S::load(lane.x + e * W))));
    }
  } else {
    for (int e = 0; e < size; ++e) {
      const auto x = S::load(lane.x + e * W);
      S::store(lane.p + e * W, type == GgmlBlock::q2_k ? S::abs(x) : S::mul(x, x));
    }
  }
}

template <class S, GgmlBlock type>
ATTAR_INLINE void search_groups(const float* values, int groups, Searched<S>& found) {
  constexpr int W = S::kWidth;
  BlockSearch call = recipe_of(type);
  std::uint8_t wanted;  // codes are, in the lanes
  call.codes = &wanted;
  for (int first = 0; first < groups; first += W) {
    const int lanes = groups - first < W ? groups - first : W;
    GroupLanes<S>& lane = found.lanes[first / W];
    gather_lanes<S>(values + first * call.size, call.size, lanes, lane.x);
    set_prices<S, type>(lane);
    if constexpr (recipe_of(type).fit == GroupFit::affine) {
      fit_affine<S, false>(call, lane, found.scale + first, found.minimum + first);
    } else if constexpr (recipe_of(type).fit == GroupFit::affine_absolute) {
      fit_affine<S, true>(call, lane, found.scale + first, found.minimum + first);
    } else if constexpr (recipe_of(type).fit == GroupFit::signed_codes) {
      fit_signed<S>(call, lane, found.scale + first);
    } else if constexpr (recipe_of(type).fit == GroupFit::signed_descent) {
      fit_descent<S>(call, lane, found.scale + first);
    } else {
      fit_table<S>(call, lane, found.scale + first);
    }
  }
}

ATTAR_INLINE float largest_of(const float* x, int count) {
  float largest = 0;
  for (int i = 0; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

// The x of largest magnitude, the first of several.
ATTAR_INLINE float extreme_part(const float* x, int count) {
  float magnitude = 0, extreme = 0;
  for (int i = 0; i < count; ++i) {
    if (__builtin_fabsf(x[i]) > magnitude) {
      magnitude = __builtin_fabsf(x[i]);
      extreme = x[i];
    }
  }
  return extreme;
}

ATTAR_INLINE void code_parts(const float* x, int count, float largest, int top,
                             std::int8_t* codes) {
  const float inverse = largest > 0 ? static_cast<float>(top) / largest : 0.0f;
  for (int i = 0; i < count; ++i) {
    const int code = nearest_whole(inverse * x[i]) & 0xff;  // a byte, as ggml keeps it
    codes[i] = static_cast<std::int8_t>(code < top ? code : top);
  }
}

// Q2_K, Q4_K, Q5_K.
template <class S, GgmlBlock type>
ATTAR_INLINE void finish_affine(const float* x, const Searched<S>& found, int first,
                                BlockParts& parts, Worst<S>& worst) {
  constexpr GgmlBlockInfo info = info_of(type);
  constexpr int groups = info.elements / info.group, top = info.highest_part;
  const float scale = largest_of(found.scale + first, groups);
  const float minimum = largest_of(found.minimum + first, groups);
  code_parts(found.scale + first, groups, scale, top, parts.a);
  code_parts(found.minimum + first, groups, minimum, top, parts.b);
  parts.d = as_f16(scale / static_cast<float>(top));
  parts.m = as_f16(minimum / static_cast<float>(top));
  for (int g = 0; g < groups; ++g, x += info.group) {
    const float step = parts.d * static_cast<float>(parts.a[g]);
    const float shift = parts.m * static_cast<float>(parts.b[g]);
    std::uint8_t* codes = parts.codes + g * info.group;
    if (step == 0) {
      Searched<S>::copy_codes(found, first + g, info.group, codes);
    } else {
      for (int e = 0; e < info.group; ++e) {
        codes[e] =
            static_cast<std::uint8_t>(limited(nearest_whole((x[e] + shift) / step), 0, info.top));
      }
    }
    for (int e = 0; e < info.group; e += S::kWidth) {
      const auto value = S::mul(S::broadcast(step), S::from_bytes(codes + e));
      add_difference<S>(S::sub(value, S::broadcast(shift)), S::load(x + e), worst);
    }
  }
}

// Q3_K, Q6_K.
template <class S, GgmlBlock type>
ATTAR_INLINE void finish_signed(const float* x, const Searched<S>& found, int first,
                                BlockParts& parts, Worst<S>& worst) {
  constexpr GgmlBlockInfo info = info_of(type);
  constexpr int groups = info.elements / info.group;
  constexpr bool wide = type == GgmlBlock::q6_k;
  const float extreme = extreme_part(found.scale + first, groups);
  const bool none = wide ? __builtin_fabsf(extreme) < 1e-15f : extreme == 0;
  const float inverse = static_cast<float>(info.lowest_part) / extreme;
  parts.d = none ? 0 : as_f16(1 / inverse);
  for (int g = 0; g < groups; ++g, x += info.group) {
    std::uint8_t* codes = parts.codes + g * info.group;
    const int a = limited(nearest_whole(inverse * found.scale[first + g]), info.lowest_part,
                          info.highest_part);
    parts.a[g] = static_cast<std::int8_t>(!none ? a : wide ? 0 : info.lowest_part);
    const float step = parts.d * static_cast<float>(parts.a[g]);
    if (none && wide) {
      __builtin_memset(codes, 0, static_cast<std::size_t>(info.group));
    } else if (none || step == 0) {
      Searched<S>::copy_codes(found, first + g, info.group, codes);
    } else {
      for (int e = 0; e < info.group; ++e) {
        const int code = limited(nearest_whole(x[e] / step), -info.middle, info.middle - 1);
        codes[e] = static_cast<std::uint8_t>(code + info.middle);
      }
    }
    const auto middle = S::broadcast(static_cast<float>(info.middle));
    for (int e = 0; e < info.group; e += S::kWidth) {
      const auto code = S::sub(S::from_bytes(codes + e), middle);
      add_difference<S>(S::mul(S::broadcast(step), code), S::load(x + e), worst);
    }
  }
}

// 32 values by d a of a table type; `held`: the d that the block holds, times a.
template <class S>
ATTAR_INLINE void code_by_table(const float* x, float scale, float held, std::uint8_t* codes,
                                Worst<S>& worst) {
  const float inverse = scale != 0 ? 1 / scale : 0.0f;
  float points[32];
  for (int e = 0; e < 32; ++e) {
    codes[e] = static_cast<std::uint8_t>(nearest_of_table16(inverse * x[e]));
  }
  for (int e = 0; e < 32; ++e) points[e] = static_cast<float>(kTable16[codes[e]]);
  for (int e = 0; e < 32; e += S::kWidth) {
    const auto value = S::mul(S::broadcast(held), S::load(points + e));
    add_difference<S>(value, S::load(x + e), worst);
  }
}

template <class S>
ATTAR_INLINE void finish_iq4_xs(const float* x, const Searched<S>& found, int first,
                                BlockParts& parts, Worst<S>& worst) {
  const float d = -extreme_part(found.scale + first, 8) / 32, held = as_f16(d);
  const float inverse = d != 0 ? 1 / d : 0.0f;
  parts.d = d;
  for (int g = 0; g < 8; ++g) {
    const int a = limited(nearest_whole(inverse * found.scale[first + g]), -32, 31);
    parts.a[g] = static_cast<std::int8_t>(a);
    const auto part = static_cast<float>(a);
    code_by_table<S>(x + 32 * g, d * part, held * part, parts.codes + 32 * g, worst);
  }
}

template <class S, GgmlBlock type>
ATTAR_INLINE void encode_searched(const float* values, std::int64_t blocks, std::uint8_t* to,
                                  Worst<S>& worst) {
  constexpr GgmlBlockInfo info = info_of(type);
  constexpr int groups = info.elements / info.group, together = kSearchGroups / groups;
  Searched<S> found = {};
  BlockParts parts = {};
  for (std::int64_t first = 0; first < blocks; first += together) {
    const auto count = static_cast<int>(blocks - first < together ? blocks - first : together);
    search_groups<S, type>(values, count * groups, found);
    for (int b = 0; b < count; ++b, values += info.elements, to += info.bytes) {
      if constexpr (type == GgmlBlock::iq4_nl) {
        parts.d = found.scale[b];
        code_by_table<S>(values, parts.d, as_f16(parts.d), parts.codes, worst);
      } else if constexpr (type == GgmlBlock::iq4_xs) {
        finish_iq4_xs<S>(values, found, b * groups, parts, worst);
      } else if constexpr (info.minimum) {
        finish_affine<S, type>(values, found, b * groups, parts, worst);
      } else {
        finish_signed<S, type>(values, found, b * groups, parts, worst);
      }
      write_parts(type, parts, to);
    }
  }
}

}  // namespace attar::kernels
