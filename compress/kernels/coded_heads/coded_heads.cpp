#include "compress/kernels/coded_heads/coded_heads.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "compress/kernels/convert/f16.h"
#include "compress/kernels/threads.h"

namespace attar::kernels {
namespace {

void check(bool holds, const char* rule, std::int64_t got) {
  if (holds) return;
  throw std::invalid_argument(std::string("[coded_heads] ") + rule + ", got " +
                              std::to_string(got));
}

// Sums and differences over ever wider pairs, in one order whoever calls.
void mix_head(float* head, std::int64_t head_dim, std::int64_t block, float scale) {
  for (std::int64_t first = 0; first < head_dim; first += block) {
    float* x = head + first;
    for (std::int64_t width = 1; width < block; width *= 2) {
      for (std::int64_t i = 0; i < block; i += 2 * width) {
        for (std::int64_t j = i; j < i + width; ++j) {
          const float a = x[j], b = x[j + width];
          x[j] = a + b;
          x[j + width] = a - b;
        }
      }
    }
    for (std::int64_t i = 0; i < block; ++i) x[i] *= scale;
  }
}

struct GroupGrid {
  std::uint16_t scale;
  std::uint16_t minimum;
};

GroupGrid grid_of(const float* x, std::int64_t count, float levels) {
  float low = x[0], high = x[0];
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    finite &= std::isfinite(x[i]);
  }
  constexpr std::uint16_t kNan = 0x7e00;
  if (!finite) return {kNan, kNan};
  return {f16_bits((high - low) / levels), f16_bits(low)};
}

// Codes with the scale and the minimum as they are stored.
void code_group(const float* x, std::int64_t count, GroupGrid grid, float levels, float* codes) {
  const float scale = f16_value(grid.scale), minimum = f16_value(grid.minimum);
  const float divisor = scale > 0 ? scale : 1;  // a group of one value; or NaN
  constexpr float kToNearest = 12582912.0f;     // 1.5 * 2^23: sums lose what is behind the point
  for (std::int64_t i = 0; i < count; ++i) {
    const float at = (x[i] - minimum) / divisor;
    const float kept = at > 0 ? (at < levels ? at : levels) : 0;  // NaN: 0
    codes[i] = (kept + kToNearest) - kToNearest;
  }
}

void code_head(const float* x, std::int64_t head_dim, int bits, std::uint8_t* out) {
  const auto levels = static_cast<float>((1 << bits) - 1);
  std::uint8_t* to = out + 4 * coded_groups(head_dim);
  for (std::int64_t first = 0; first < head_dim; first += kCodedGroup) {
    const std::int64_t count = std::min(kCodedGroup, head_dim - first);
    const GroupGrid grid = grid_of(x + first, count, levels);
    __builtin_memcpy(out + first / kCodedGroup * 4, &grid, sizeof grid);
    float codes[kCodedGroup];
    code_group(x + first, count, grid, levels, codes);
    if (bits == 8) {
      for (std::int64_t i = 0; i < count; ++i) to[i] = static_cast<std::uint8_t>(codes[i]);
    } else {
      for (std::int64_t i = 0; i < count / 2; ++i) {
        to[i] = static_cast<std::uint8_t>(codes[i] + 16 * codes[i + count / 2]);
      }
    }
    to += count * bits / 8;
  }
}

}  // namespace

void mix_channels(float* states, const HeadRows& rows) {
  const std::int64_t block = rows.head_dim & -rows.head_dim;
  const float scale = 1 / std::sqrt(static_cast<float>(block));
  for_row_ranges(rows.tokens, rows.heads * rows.head_dim, [&](std::int64_t t, std::int64_t end) {
    for (; t < end; ++t) {
      for (std::int64_t h = 0; h < rows.heads; ++h) {
        mix_head(states + t * rows.token_stride + h * rows.head_dim, rows.head_dim, block, scale);
      }
    }
  });
}

void code_heads(const float* states, const HeadRows& rows, int bits, std::uint8_t* out,
                std::int64_t out_stride) {
  check(bits == 4 || bits == 8, "bits must be 4 or 8", bits);
  check(rows.head_dim > 0 && rows.head_dim % 2 == 0, "head_dim must be even", rows.head_dim);
  const std::int64_t bytes = coded_head_bytes(rows.head_dim, bits);
  for_row_ranges(rows.tokens, rows.heads * rows.head_dim, [&](std::int64_t t, std::int64_t end) {
    for (; t < end; ++t) {
      for (std::int64_t h = 0; h < rows.heads; ++h) {
        code_head(states + t * rows.token_stride + h * rows.head_dim, rows.head_dim, bits,
                  out + t * out_stride + h * bytes);
      }
    }
  });
}

}  // namespace attar::kernels
