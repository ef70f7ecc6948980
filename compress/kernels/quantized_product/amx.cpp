// Many tokens at once on the tile instructions: 16 tokens x 16 outputs x 32 inputs each.
#include "compress/kernels/quantized_product/body.h"
#include "compress/kernels/quantized_product/vectors512.h"

namespace attar::kernels {

// Instantiated where the kernels of AVX-512 VNNI are.
void quantized_product_avx512_vnni(const QuantizedProduct&, const QuantizedTask&);

namespace {

constexpr std::int64_t kBlockBytes = kPanelOutputs * kBlockInputs;  // of codes as signed bytes
constexpr std::int64_t kDepth = 4;                                  // blocks on their way at once

// Tiles 0 .. 3 hold sums, 4 and 5 tokens by 32 inputs, 6 and 7 codes, four inputs by 16 outputs.
class TileShapes {
 public:
  TileShapes() {
    Configuration shape = {};
    shape.palette = 1;
    for (int i = 0; i < 8; ++i) {
      shape.row_bytes[i] = i == 4 || i == 5 ? 32 : 64;
      shape.rows[i] = i >= 6 ? 8 : 16;
    }
    // GCC 12 thinks that the instruction reads 8 bytes and may leave the others unwritten.
    __asm__ volatile("" : : "r"(&shape) : "memory");
    _tile_loadconfig(&shape);
  }
  ~TileShapes() { _tile_release(); }
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;

 private:
  struct alignas(64) Configuration {
    std::uint8_t palette;
    std::uint8_t start_row;
    std::uint8_t reserved[14];
    std::uint16_t row_bytes[16];
    std::uint8_t rows[16];
  };
};

// A panel made ready for many tokens.
struct OpenPanel {
  std::int8_t* codes;  // [block][8][16][4]
  float* scales;       // [group][16]
  float* seconds;      // [group][16]
  std::int32_t* sums;  // [kDepth][16 tokens][16 outputs]
};

template <int kBits, bool kOffset>
ATTAR_INLINE void open_codes(const std::uint8_t* codes, std::int64_t blocks, std::int8_t* out) {
  constexpr int kMiddle = kBits == 8 ? -128 : 8;
  const __m512i middle = _mm512_set1_epi8(static_cast<char>(kMiddle));
  for (std::int64_t line = 0; line < blocks * kBits; ++line, codes += kLine) {
    const __m512i packed = Vectors512::load_codes(codes);
    if constexpr (kBits == 8) {
      _mm512_store_si512(out + line * kLine, _mm512_xor_si512(packed, middle));
    } else {
      __m512i low = Vectors512::low_half(packed), high = Vectors512::high_half(packed);
      if constexpr (kOffset) {
        low = _mm512_sub_epi8(low, middle);
        high = _mm512_sub_epi8(high, middle);
      }
      std::int8_t* to = out + (line / 4 * 8 + line % 4) * kLine;
      _mm512_store_si512(to, low);
      _mm512_store_si512(to + 4 * kLine, high);
    }
  }
}

template <int kBits, SecondParameter kSecond, bool kHalf>
ATTAR_INLINE void open_panel(const QuantizedLayer& layer, std::int64_t panel,
                             const OpenPanel& open) {
  const auto* at = static_cast<const std::uint8_t*>(layer.weights) +
                   panel * panel_bytes(layer.inner, layer.format);
  open_codes<kBits, kSecond == SecondParameter::none>(
      at + panel_parameter_bytes(layer.inner, layer.format), layer.inner / kBlockInputs,
      open.codes);
  for (std::int64_t g = 0; g < groups_of(layer.inner, layer.format.group); ++g) {
    const auto group = GroupParameters<Vectors512, kSecond, kHalf>::load(at, 0);
    _mm512_store_ps(open.scales + g * kPanelOutputs, group.scale);
    if constexpr (kSecond != SecondParameter::none) {
      _mm512_store_ps(open.seconds + g * kPanelOutputs, group.second);
    }
    at += group_parameter_bytes(layer.format);
  }
}

// Integer sums of the block `b` of a tile of tokens. `total`, `left` and `right` name registers.
#define ATTAR_SUM_BLOCK(total, left, right, b)          \
  _tile_zero(total);                                    \
  _tile_loadd(left, x + (b)*kTileTokens * 32, 32);      \
  _tile_loadd(right, open.codes + (b)*kBlockBytes, 64); \
  _tile_dpbssd(total, left, right)
#define ATTAR_STORE(total) _tile_stored(total, open.sums + (total)*256, 64)

template <SecondParameter kSecond>
ATTAR_INLINE void add_block(const std::int32_t* whole, __m512 scale, __m512 second,
                            const float* scales, const float* token_sums, __m512 (&sums)[16]) {
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t) {
    const __m512 value = _mm512_cvtepi32_ps(_mm512_load_si512(whole + t * 16));
    sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(scales[t])), value, sums[t]);
    if constexpr (kSecond == SecondParameter::minimum) {
      sums[t] = _mm512_fmadd_ps(second, _mm512_set1_ps(token_sums[t]), sums[t]);
    }
    if constexpr (kSecond == SecondParameter::zero) {
      sums[t] = _mm512_fnmadd_ps(second, _mm512_set1_ps(token_sums[t]), sums[t]);
    }
  }
}

template <SecondParameter kSecond>
ATTAR_INLINE void multiply_tile(const QuantizedProduct& call, const OpenPanel& open,
                                std::int64_t tile, std::int64_t output) {
  const std::int64_t blocks = call.x.inner / kBlockInputs;
  const std::int64_t group_blocks = call.layer.format.group / kBlockInputs;
  const std::int64_t first = tile * blocks * kTileTokens;
  const std::int8_t* x = call.x.values + first * kBlockInputs;
  __m512 sums[16];
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t) sums[t] = _mm512_setzero_ps();
  const auto add = [&](std::int64_t b, const std::int32_t* whole) __attribute__((always_inline)) {
    const std::int64_t group = group_blocks == 1 ? b : b / group_blocks;
    const std::int64_t at = first + b * kTileTokens;
    const __m512 second = kSecond == SecondParameter::none
                              ? _mm512_setzero_ps()
                              : _mm512_load_ps(open.seconds + group * kPanelOutputs);
    add_block<kSecond>(whole, _mm512_load_ps(open.scales + group * kPanelOutputs), second,
                       call.x.scales + at, call.x.sums + at, sums);
  };
  // Two blocks are multiplied while the two before are stored and scaled.
  std::int64_t b = 0;
  if (blocks > 1) {
    ATTAR_SUM_BLOCK(0, 4, 6, 0);
    ATTAR_SUM_BLOCK(1, 5, 7, 1);
  }
  for (; b + 2 <= blocks; b += 2) {
    const bool more = b + 4 <= blocks;
    if ((b & 2) == 0) {
      if (more) {
        ATTAR_SUM_BLOCK(2, 4, 6, b + 2);
        ATTAR_SUM_BLOCK(3, 5, 7, b + 3);
      }
      ATTAR_STORE(0);
      ATTAR_STORE(1);
    } else {
      if (more) {
        ATTAR_SUM_BLOCK(0, 4, 6, b + 2);
        ATTAR_SUM_BLOCK(1, 5, 7, b + 3);
      }
      ATTAR_STORE(2);
      ATTAR_STORE(3);
    }
    add(b, open.sums + (b & 2) * 256);
    add(b + 1, open.sums + (b & 2) * 256 + 256);
  }
  if (b < blocks) {
    ATTAR_SUM_BLOCK(0, 4, 6, b);
    ATTAR_STORE(0);
    add(b, open.sums);
  }
#pragma GCC unroll 16
  for (int t = 0; t < 16; ++t) {
    const std::int64_t token = tile * kTileTokens + t;
    if (token < call.x.rows) write_slice<Vectors512>(call, token, output, sums[t]);
  }
}
#undef ATTAR_SUM_BLOCK
#undef ATTAR_STORE

template <int kBits, SecondParameter kSecond, bool kHalf>
void tile_task(const QuantizedProduct& call, const QuantizedTask& task) {
  const std::int64_t inner = call.layer.inner;
  const std::int64_t groups = groups_of(inner, call.layer.format.group);
  std::uint8_t* at = task.scratch;
  OpenPanel open;
  open.sums = reinterpret_cast<std::int32_t*>(at);
  at += kDepth * 1024;
  open.scales = reinterpret_cast<float*>(at);
  open.seconds = open.scales + groups * kPanelOutputs;
  open.codes = reinterpret_cast<std::int8_t*>(open.seconds + groups * kPanelOutputs);
  for (std::int64_t panel = task.panel_begin; panel < task.panel_end; ++panel) {
    open_panel<kBits, kSecond, kHalf>(call.layer, panel, open);
    for (std::int64_t tile = task.tile_begin; tile < task.tile_end; ++tile) {
      multiply_tile<kSecond>(call, open, tile, panel * kPanelOutputs);
    }
  }
}

template <int kBits, SecondParameter kSecond>
void tile_kind(const QuantizedProduct& call, const QuantizedTask& task) {
  if (call.layer.format.parameters == HeldAs::f16)
    return tile_task<kBits, kSecond, true>(call, task);
  return tile_task<kBits, kSecond, false>(call, task);
}

template <int kBits>
void tile_bits(const QuantizedProduct& call, const QuantizedTask& task) {
  switch (call.layer.format.second) {
    case SecondParameter::none:
      return tile_kind<kBits, SecondParameter::none>(call, task);
    case SecondParameter::minimum:
      return tile_kind<kBits, SecondParameter::minimum>(call, task);
    case SecondParameter::zero:
      return tile_kind<kBits, SecondParameter::zero>(call, task);
  }
}

}  // namespace

void quantized_product_amx(const QuantizedProduct& call, const QuantizedTask& task) {
  constexpr std::int64_t kFewTokens = 8;  // below, opening a panel does not pay
  if (call.x.rows < kFewTokens || in_planes(call.layer.format)) {
    return quantized_product_avx512_vnni(call, task);
  }
  const TileShapes registers;
  if (call.layer.format.bits == 4) return tile_bits<4>(call, task);
  return tile_bits<8>(call, task);
}

}  // namespace attar::kernels
