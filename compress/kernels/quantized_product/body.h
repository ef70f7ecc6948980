// Rounding and products, once for every set of vectors V: kLanes outputs side by side.
#pragma once

#include "compress/kernels/quantized_product/layout.h"
#include "compress/kernels/quantized_product/planes.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

// Some outputs of a panel, and what a product of it reads and writes.
struct PanelSlice {
  const std::uint8_t* parameters;
  const std::uint8_t* codes;
  std::int64_t output;  // the first of the slice
};

template <class V, SecondParameter kSecond, bool kHalf>
struct GroupParameters {
  typename V::Floats scale, second;

  // `lane` is the first output's place in the panel.
  ATTAR_INLINE GroupParameters load(const std::uint8_t* at, std::int64_t lane) {
    constexpr std::int64_t kSize = kHalf ? 2 : 4;
    GroupParameters p;
    p.scale = V::template load<kHalf>(at + lane * kSize);
    if constexpr (kSecond != SecondParameter::none) {
      p.second = V::template load<kHalf>(at + (kPanelOutputs + lane) * kSize);
    }
    if constexpr (kSecond == SecondParameter::zero) p.second = V::mul(p.scale, p.second);
    return p;
  }
};

// Integer sums of one block of kSlices slices for kTokens tokens, who read what they share once.
template <class V, int kBits, bool kOffset, int kSlices, int kTokens>
ATTAR_INLINE void sum_block(const std::uint8_t* const (&codes)[kSlices], const std::int8_t* x,
                            const std::int32_t* offsets,
                            typename V::Ints (&sums)[kSlices][kTokens]) {
  typename V::template Partial<kBits> parts[kSlices][kTokens];
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int s = 0; s < kSlices; ++s) {
      parts[s][t] = V::template start<kBits, kOffset>(offsets + t);
    }
  }
#pragma GCC unroll 8
  for (int q = 0; q < kBits; ++q) {
    decltype(V::load_codes(codes[0])) line[kSlices], high[kSlices];
#pragma GCC unroll 2
    for (int s = 0; s < kSlices; ++s) {
      line[s] = V::load_codes(codes[s] + q * kLine);
      if constexpr (kBits == 4) high[s] = V::high_half(line[s]), line[s] = V::low_half(line[s]);
    }
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      const std::int8_t* from = x + t * kBlockInputs + 4 * q;
#pragma GCC unroll 2
      for (int s = 0; s < kSlices; ++s) {
        if constexpr (kBits == 4) {
          parts[s][t] = V::dot4(parts[s][t], line[s], from);
          parts[s][t] = V::dot4(parts[s][t], high[s], from + 16);
        } else {
          parts[s][t] = V::dot8(parts[s][t], line[s], from);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
    for (int s = 0; s < kSlices; ++s) {
      sums[s][t] = V::template finish<kBits, kOffset>(parts[s][t], offsets + t);
    }
  }
}

// From one slice to the next: the same place of the next panel, or the rest of this one.
struct SliceStep {
  std::int64_t bytes;    // between their panels
  std::int64_t lanes;    // between their places in a panel
  std::int64_t outputs;  // between their first outputs
};

// kSlices slices for the tokens [token, token + kTokens) of one tile.
template <class V, int kBits, SecondParameter kSecond, bool kHalf, int kSlices, int kTokens>
ATTAR_INLINE void multiply_slices(const QuantizedProduct& call, const PanelSlice& slice,
                                  const SliceStep& apart, std::int64_t token) {
  constexpr std::int64_t kCodes = block_code_bytes(kBits);
  constexpr bool kOffset = kSecond == SecondParameter::none || kBits == 8;
  const RoundedRows& x = call.x;
  const std::int64_t blocks = x.inner / kBlockInputs, lane = slice.output % kPanelOutputs;
  const std::int64_t group_blocks = call.layer.format.group / kBlockInputs;
  const std::int64_t first = first_block(x, token);
  const std::int8_t* values = x.values + first * kBlockInputs;
  const float* scales = x.scales + first;
  const float* token_sums = x.sums + first;
  const std::int32_t* offsets = x.offsets + first;

  typename V::Floats sums[kSlices][kTokens];
  const std::uint8_t* codes[kSlices];
#pragma GCC unroll 2
  for (int s = 0; s < kSlices; ++s) {
    codes[s] = slice.codes + s * apart.bytes + (lane + s * apart.lanes) * 4;
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) sums[s][t] = V::zeros();
  }
  const std::uint8_t* at = slice.parameters;
  // One token waits for memory: what comes later is asked for in time, parameters too.
  constexpr std::int64_t kParameters =
      group_parameter_bytes({kBits, kSecond, kHalf ? HeldAs::f16 : HeldAs::f32, kBlockInputs});
  const std::uint8_t* ahead = slice.parameters + V::kAhead;
  const std::int64_t step = panel_bytes(x.inner, call.layer.format) / blocks;
  for (std::int64_t b = 0; b < blocks; at += kParameters) {
    GroupParameters<V, kSecond, kHalf> group[kSlices];
#pragma GCC unroll 2
    for (int s = 0; s < kSlices; ++s) {
      group[s] =
          GroupParameters<V, kSecond, kHalf>::load(at + s * apart.bytes, lane + s * apart.lanes);
    }
    const std::int64_t end = b + group_blocks < blocks ? b + group_blocks : blocks;
    for (; b < end; ++b) {
      if constexpr (kTokens == 1) V::prefetch(ahead, kCodes + kParameters);
      ahead += step;
      typename V::Ints whole[kSlices][kTokens];
      sum_block<V, kBits, kOffset, kSlices, kTokens>(codes, values, offsets, whole);
#pragma GCC unroll 16
      for (int t = 0; t < kTokens; ++t) {
#pragma GCC unroll 2
        for (int s = 0; s < kSlices; ++s) {
          sums[s][t] = V::fused(V::mul(group[s].scale, V::broadcast(scales + t)),
                                V::to_floats(whole[s][t]), sums[s][t]);
          if constexpr (kSecond == SecondParameter::minimum) {
            sums[s][t] = V::fused(group[s].second, V::broadcast(token_sums + t), sums[s][t]);
          }
          if constexpr (kSecond == SecondParameter::zero) {
            sums[s][t] =
                V::fused_negated(group[s].second, V::broadcast(token_sums + t), sums[s][t]);
          }
        }
      }
#pragma GCC unroll 2
      for (int s = 0; s < kSlices; ++s) codes[s] += kCodes;
      values += x.tile * kBlockInputs;
      scales += x.tile;
      token_sums += x.tile;
      offsets += x.tile;
    }
  }
#pragma GCC unroll 2
  for (int s = 0; s < kSlices; ++s) {
#pragma GCC unroll 16
    for (int t = 0; t < kTokens; ++t) {
      write_slice<V>(call, token + t, slice.output + s * apart.outputs, sums[s][t]);
    }
  }
}

// The tokens from `token` on, as many as come together, for kSlices slices that start at each
// vector of outputs of a panel. Returns the first token that is left.
template <class V, int kBits, SecondParameter kSecond, bool kHalf, int kSlices, int kTokens>
ATTAR_INLINE std::int64_t multiply_together(const QuantizedProduct& call, const PanelSlice& panel,
                                            const SliceStep& apart, std::int64_t token,
                                            std::int64_t end) {
  const std::int64_t last = token + (end - token) / kTokens * kTokens;
  if (token == last) return token;
  for (std::int64_t lane = 0; lane < kPanelOutputs; lane += V::kLanes) {
    const PanelSlice slice{panel.parameters, panel.codes, panel.output + lane};
    for (std::int64_t t = token; t < last; t += kTokens) {
      multiply_slices<V, kBits, kSecond, kHalf, kSlices, kTokens>(call, slice, apart, t);
    }
  }
  return last;
}

template <class V, int kBits, SecondParameter kSecond, bool kHalf>
void multiply_task(const QuantizedProduct& call, const QuantizedTask& task) {
  const std::int64_t inner = call.layer.inner, whole = panel_bytes(inner, call.layer.format);
  const std::int64_t header = panel_parameter_bytes(inner, call.layer.format);
  const std::int64_t begin = task.tile_begin * call.x.tile;
  const std::int64_t all = task.tile_end * call.x.tile;
  const std::int64_t end = all < call.x.rows ? all : call.x.rows;
  constexpr SliceStep kRest = {0, V::kLanes, V::kLanes};
  constexpr int kRests = kPanelOutputs / V::kLanes, kTogether = V::template kTokens<kBits>;
  const auto panel_at = [&](std::int64_t panel) {
    const auto* at = static_cast<const std::uint8_t*>(call.layer.weights) + panel * whole;
    return PanelSlice{at, at + header, panel * kPanelOutputs};
  };
  for (std::int64_t panel = task.panel_begin; panel < task.panel_end;) {
    std::int64_t token = begin, count = 1;
    if constexpr (V::kPairTokens > 0) {
      if (panel + 1 < task.panel_end) {
        token = multiply_together<V, kBits, kSecond, kHalf, 2, V::kPairTokens>(
            call, panel_at(panel), {whole, 0, kPanelOutputs}, token, end);
        if (token > begin) count = 2;
      }
    }
    for (const std::int64_t behind = panel + count, left = token; panel < behind; ++panel) {
      const PanelSlice slice = panel_at(panel);
      token = left;
      if constexpr (kTogether > 1) {
        token = multiply_together<V, kBits, kSecond, kHalf, 1, kTogether>(call, slice, kRest, token,
                                                                          end);
      }
      if constexpr (kTogether > 4) {
        token = multiply_together<V, kBits, kSecond, kHalf, 1, 4>(call, slice, kRest, token, end);
      }
      // What is left over waits for memory: token by token for all outputs of the panel at once.
      for (; token < end; ++token) {
        multiply_slices<V, kBits, kSecond, kHalf, kRests, 1>(call, slice, kRest, token);
      }
    }
  }
}

template <class V, int kBits, SecondParameter kSecond>
ATTAR_INLINE void multiply_kind(const QuantizedProduct& call, const QuantizedTask& task) {
  if (call.layer.format.parameters == HeldAs::f16) {
    return multiply_task<V, kBits, kSecond, true>(call, task);
  }
  return multiply_task<V, kBits, kSecond, false>(call, task);
}

template <class V, int kBits>
ATTAR_INLINE void multiply_bits(const QuantizedProduct& call, const QuantizedTask& task) {
  switch (call.layer.format.second) {
    case SecondParameter::none:
      return multiply_kind<V, kBits, SecondParameter::none>(call, task);
    case SecondParameter::minimum:
      return multiply_kind<V, kBits, SecondParameter::minimum>(call, task);
    case SecondParameter::zero:
      return multiply_kind<V, kBits, SecondParameter::zero>(call, task);
  }
}

template <class V>
void quantized_product_task(const QuantizedProduct& call, const QuantizedTask& task) {
  if (in_planes(call.layer.format)) return multiply_in_planes<V>(call, task);
  if (call.layer.format.bits == 4) return multiply_bits<V, 4>(call, task);
  return multiply_bits<V, 8>(call, task);
}

// Rows [begin, end) of the call. Only rows that exist are read; surplus tokens are the caller's.
template <class V>
void round_row_range(const RoundRows& call, std::int64_t begin, std::int64_t end) {
  const RoundedRows& out = call.out;
  const std::int64_t blocks = out.inner / kBlockInputs;
  for (std::int64_t row = begin; row < end; ++row) {
    const float* x = call.x + row * call.x_stride;
    std::int64_t at = first_block(out, row);
    for (std::int64_t b = 0; b < blocks; ++b, at += out.tile) {
      const float* from = x + b * kBlockInputs;
      std::int8_t* values = out.values + at * kBlockInputs;
      const std::uint32_t bits = V::largest_magnitude(from);
      const float largest = __builtin_bit_cast(float, bits);
      const bool finite = bits < 0x7f800000u, counts = finite && largest >= 0x1p-100f;
      const float scale = counts ? largest / 127.0f : finite ? 0.0f : __builtin_nanf("");
      const std::int32_t sum =
          V::round_block(from, counts ? 127.0f / largest : 0.0f, values, counts);
      out.scales[at] = scale;
      set_sums(out, at, sum);
    }
  }
}

}  // namespace attar::kernels
