// Products with codes in bit planes, of tables, in groups of 16 and in super-blocks, once for every
// set of vectors V. A block is unpacked into lines of bytes once for all tokens of a tile.
#pragma once

#include <utility>

#include "compress/kernels/quantized_product/layout.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

// body(constant 0), body(constant 1), ...
template <int kCount, class Body>
ATTAR_INLINE void unrolled(const Body& body) {
  [&]<int... kIndex>(std::integer_sequence<int, kIndex...>) __attribute__((always_inline)) {
    (body(std::integral_constant<int, kIndex>()), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

template <class V>
struct BlockLines {
  typename V::Codes step[8];  // unsigned bytes: 4 inputs of every output
};

template <class V, int kBits, bool kTable>
ATTAR_INLINE void unpack_block(const std::uint8_t* codes, const std::int8_t* table,
                               BlockLines<V>& lines) {
  constexpr int kLow = kBits >= 4 ? 4 : 0;  // bits of the first plane
  constexpr int kPairBits = kBits == 2 || kBits == 3 || kBits == 6 ? 2 : 0;
  if constexpr (kLow > 0) {
    unrolled<4>([&](auto q) __attribute__((always_inline)) {
      const auto both = V::load_codes(codes + q * kLine);
      lines.step[q] = V::low_half(both), lines.step[q + 4] = V::high_half(both);
    });
    codes += 4 * kLine;
  }
  if constexpr (kPairBits > 0) {
    unrolled<8>([&](auto q) __attribute__((always_inline)) {
      const auto pair =
          V::template bits<2 * (q % 4), 2, kLow>(V::load_codes(codes + q / 4 * kLine));
      lines.step[q] = kLow == 0 ? pair : V::merge(lines.step[q], pair);
    });
    codes += 2 * kLine;
  }
  if constexpr (kBits % 2 == 1) {
    const auto line = V::load_codes(codes);
    unrolled<8>([&](auto q) __attribute__((always_inline)) {
      lines.step[q] = V::merge(lines.step[q], V::template bits<q, 1, kLow + kPairBits>(line));
    });
  }
  if constexpr (kTable) {
    const auto points = V::table(table);  // 128 too high
    unrolled<8>([&](auto q) __attribute__((always_inline)) {
      lines.step[q] = V::look_up(points, lines.step[q]);
    });
  }
}

// The sum of the products of the steps [kFirst, kFirst + kSteps), added to the offset if so asked:
// of tables that of RoundedRows.
template <class V, int kBits, bool kTable, bool kOffset, int kFirst, int kSteps>
ATTAR_INLINE typename V::Ints sum_steps(const BlockLines<V>& lines, const std::int8_t* x,
                                        const std::int32_t* offset) {
  constexpr int kWidth = kTable ? 8 : 4;  // how V sums up: as codes of so many bits
  constexpr int kTogether = kTable ? kSteps : V::template kStepsTogether<kBits>;
  typename V::Ints sum;
  unrolled<(kSteps + kTogether - 1) / kTogether>([&](auto part) __attribute__((always_inline)) {
    constexpr bool kFirstPart = part == 0, kStart = kFirstPart && kOffset;
    constexpr int kBegin = kFirst + part * kTogether;
    constexpr int kCount = kTogether < kSteps ? kTogether : kSteps;
    auto pieces = V::template start<kWidth, kStart>(offset);
    unrolled<kCount>([&](auto q) __attribute__((always_inline)) {
      constexpr int kStep = kBegin + q;
      if constexpr (kTable) pieces = V::dot8(pieces, lines.step[kStep], x + 4 * kStep);
      if constexpr (!kTable) pieces = V::dot4(pieces, lines.step[kStep], x + 4 * kStep);
    });
    const auto whole = V::template finish<kWidth, kStart>(pieces, offset);
    sum = kFirstPart ? whole : V::add_whole(sum, whole);
  });
  return sum;
}

// Parameters of some outputs in one block: of its halves, or of all of it.
template <class V, bool kSecond, int kGroups>
struct BlockParameters {
  typename V::Floats scale[kGroups], second[kGroups];

  ATTAR_INLINE BlockParameters of_super(const std::uint8_t* panel, std::int64_t block,
                                        std::int64_t lane) {
    constexpr std::int64_t kBlocks = kSuperInputs / kBlockInputs, kParts = kBlocks * kGroups;
    constexpr int kNumbers = kSecond ? 2 : 1;
    const std::uint8_t* at = panel + block / kBlocks * kPanelOutputs * (2 + kParts) * kNumbers;
    const std::uint8_t* parts =
        at + 2 * kPanelOutputs * kNumbers + block % kBlocks * kGroups * kPanelOutputs + lane;
    BlockParameters p;
    for (int g = 0; g < kGroups; ++g, parts += kPanelOutputs) {
      p.scale[g] = V::mul(V::template load<true>(at + 2 * lane), V::whole(parts));
      if constexpr (kSecond) {
        p.second[g] = V::mul(V::template load<true>(at + 2 * (kPanelOutputs + lane)),
                             V::whole(parts + kParts * kPanelOutputs));
      }
    }
    return p;
  }

  // From the group `first` on.
  ATTAR_INLINE BlockParameters of_groups(const QuantizedFormat& format, const std::uint8_t* panel,
                                         std::int64_t first, std::int64_t lane) {
    const bool half = format.parameters == HeldAs::f16;
    const std::int64_t size = half ? 2 : 4, bytes = kPanelOutputs * size * (kSecond ? 2 : 1);
    const std::uint8_t* at = panel + first * bytes + lane * size;
    BlockParameters p;
    for (int g = 0; g < kGroups; ++g, at += bytes) {
      p.scale[g] = half ? V::template load<true>(at) : V::template load<false>(at);
      if constexpr (kSecond) {
        const std::uint8_t* next = at + kPanelOutputs * size;
        p.second[g] = half ? V::template load<true>(next) : V::template load<false>(next);
        if (format.second == SecondParameter::zero) {
          p.second[g] = V::fused_negated(p.scale[g], p.second[g], V::zeros());
        }
      }
    }
    return p;
  }
};

// The tokens of one tile for one panel. kMost: tokens of a tile.
template <class V, int kBits, bool kTable, bool kSecond, int kGroups, int kMost>
void multiply_planes(const QuantizedProduct& call, const std::uint8_t* panel, std::int64_t tile,
                     std::int64_t output) {
  constexpr int kSlices = kPanelOutputs / V::kLanes;
  constexpr std::int64_t kCodes = block_code_bytes(kBits);
  const RoundedRows& x = call.x;
  const QuantizedFormat& format = call.layer.format;
  const std::int64_t blocks = x.inner / kBlockInputs, first = tile * kMost;
  const int tokens = static_cast<int>(x.rows - first < kMost ? x.rows - first : kMost);
  constexpr std::int32_t kMiddle = 1 << (kBits - 1);  // of codes without a second parameter
  const std::uint8_t* codes = panel + panel_parameter_bytes(x.inner, format);
  typename V::Floats sums[kSlices][kMost];
  for (auto& slice : sums) {
    for (auto& sum : slice) sum = V::zeros();
  }
  using Parameters = BlockParameters<V, kSecond, kGroups>;
  const bool super = format.parameters == HeldAs::super;
  const std::int64_t group_blocks = kGroups == 2 ? 1 : format.group / kBlockInputs;
  std::int64_t at = first * blocks, group = 0, left = group_blocks;
  for (std::int64_t b = 0; b < blocks; ++b, codes += kCodes, at += kMost) {
    if constexpr (kMost == 1) V::prefetch(codes + V::kAhead, kCodes);
    unrolled<kSlices>([&](auto s) __attribute__((always_inline)) {
      constexpr std::int64_t kLane = s * V::kLanes;
      BlockLines<V> lines;
      unpack_block<V, kBits, kTable>(codes + 4 * kLane, format.table, lines);
      const auto parameters = super ? Parameters::of_super(panel, b, kLane)
                                    : Parameters::of_groups(format, panel, group, kLane);
      for (int t = 0; t < (kMost == 1 ? 1 : tokens); ++t) {
        const std::int8_t* values = x.values + (at + t) * kBlockInputs;
        auto sum = sums[s][t];
        unrolled<kGroups>([&](auto g) __attribute__((always_inline)) {
          constexpr int kSteps = 8 / kGroups;
          const float* scale = x.scales + at + t;
          const std::int32_t* halves = x.halves + 2 * (at + t);
          const std::int32_t offset = -kMiddle * (kGroups == 2 ? halves[g] : halves[0] + halves[1]);
          const auto whole = sum_steps<V, kBits, kTable, !kSecond, g * kSteps, kSteps>(
              lines, values, kTable ? x.offsets + at + t : &offset);
          sum =
              V::fused(V::mul(parameters.scale[g], V::broadcast(scale)), V::to_floats(whole), sum);
          if constexpr (kSecond) {
            const float half = *scale * static_cast<float>(halves[g]);
            sum = V::fused(parameters.second[g],
                           V::broadcast(kGroups == 2 ? &half : x.sums + at + t), sum);
          }
        });
        sums[s][t] = sum;
      }
    });
    if (--left == 0) group += kGroups, left = group_blocks;
  }
  for (int s = 0; s < kSlices; ++s) {
    for (int t = 0; t < tokens; ++t) {
      write_slice<V>(call, first + t, output + s * V::kLanes, sums[s][t]);
    }
  }
}

template <class V, int kBits, bool kTable, bool kSecond, int kGroups>
void planes_task(const QuantizedProduct& call, const QuantizedTask& task) {
  const std::int64_t bytes = panel_bytes(call.layer.inner, call.layer.format);
  for (std::int64_t panel = task.panel_begin; panel < task.panel_end; ++panel) {
    const auto* at = static_cast<const std::uint8_t*>(call.layer.weights) + panel * bytes;
    for (std::int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      const std::int64_t output = panel * kPanelOutputs;
      if (call.x.tile == 1) {
        multiply_planes<V, kBits, kTable, kSecond, kGroups, 1>(call, at, tile, output);
      } else {
        multiply_planes<V, kBits, kTable, kSecond, kGroups, kTileTokens>(call, at, tile, output);
      }
    }
  }
}

template <class V, int kBits>
void planes_of_bits(const QuantizedProduct& call, const QuantizedTask& task) {
  const QuantizedFormat& format = call.layer.format;
  const bool second = format.second != SecondParameter::none;
  if (format.group < kBlockInputs) {
    if (second) return planes_task<V, kBits, false, true, 2>(call, task);
    return planes_task<V, kBits, false, false, 2>(call, task);
  }
  if (second) return planes_task<V, kBits, false, true, 1>(call, task);
  return planes_task<V, kBits, false, false, 1>(call, task);
}

template <class V>
void multiply_in_planes(const QuantizedProduct& call, const QuantizedTask& task) {
  if (call.layer.format.table != nullptr) return planes_task<V, 4, true, false, 1>(call, task);
  switch (call.layer.format.bits) {
    case 2:
      return planes_of_bits<V, 2>(call, task);
    case 3:
      return planes_of_bits<V, 3>(call, task);
    case 4:
      return planes_of_bits<V, 4>(call, task);
    case 5:
      return planes_of_bits<V, 5>(call, task);
    default:
      return planes_of_bits<V, 6>(call, task);
  }
}

}  // namespace attar::kernels
