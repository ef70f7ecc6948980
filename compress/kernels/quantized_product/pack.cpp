// Codes and parameters into panels, as layout.h has them.
#include <algorithm>
#include <bit>
#include <cstring>

#include "compress/kernels/convert/f16.h"
#include "compress/kernels/quantized_product/layout.h"

namespace attar::kernels {
namespace {

bool is_half(float value) {
  return std::bit_cast<std::uint32_t>(f16_value(f16_bits(value))) ==
         std::bit_cast<std::uint32_t>(value);
}

// Codes and parameters as a panel holds them: of 8 bits with all codes around 128, of fewer as they
// are.
struct Recoded {
  int code = 0;       // added to codes
  float second = 0;   // added to zeros
  float minimum = 0;  // times the scale, added to minima
};

Recoded recoded(const GridRows& rows, int bits) {
  const int middle = 1 << (bits - 1);
  if (rows.table != nullptr) return {};
  if (rows.kind == SecondParameter::none) return {middle - (1 << (rows.bits - 1)), 0, 0};
  if (bits < 8) return {};
  // The kernels take 128 off every code of 8 bits; codes stay as they are, parameters follow.
  return {0, rows.kind == SecondParameter::zero ? -128.0f : 0.0f,
          rows.kind == SecondParameter::minimum ? 128.0f : 0.0f};
}

float second_of(const GridRows& rows, const Recoded& change, std::int64_t at) {
  return rows.second[at] + change.second + change.minimum * rows.scale[at];
}

void write_parameter(std::uint8_t* to, bool half, float value) {
  const std::uint16_t bits = half ? f16_bits(value) : std::uint16_t{0};
  if (half) std::memcpy(to, &bits, 2);
  if (!half) std::memcpy(to, &value, 4);
}

// Those of one output; `out` is the panel.
void pack_parameters(const GridRows& rows, const QuantizedFormat& format, std::int64_t row,
                     std::int64_t lane, std::uint8_t* out) {
  const Recoded change = recoded(rows, format.bits);
  const bool half = format.parameters == HeldAs::f16, second = rows.kind != SecondParameter::none;
  const std::int64_t groups = groups_of(rows.inner, rows.group), size = half ? 2 : 4;
  for (std::int64_t g = 0; g < groups; ++g) {
    const std::int64_t at = row * groups + g;
    std::uint8_t* to = out + g * group_parameter_bytes(format) + lane * size;
    write_parameter(to, half, rows.scale[at]);
    if (!second) continue;
    write_parameter(to + kPanelOutputs * size, half, second_of(rows, change, at));
  }
}

void pack_super_parameters(const GridRows& rows, const QuantizedFormat& format, std::int64_t row,
                           std::int64_t lane, std::uint8_t* out) {
  const std::int64_t supers = rows.inner / kSuperInputs, groups = kSuperInputs / rows.group;
  const bool second = rows.kind != SecondParameter::none;
  for (std::int64_t s = 0; s < supers; ++s, out += super_parameter_bytes(format)) {
    const std::int64_t at = row * supers + s;
    write_parameter(out + 2 * lane, true, rows.super.d[at]);
    std::uint8_t* parts = out + 2 * kPanelOutputs * (second ? 2 : 1) + lane;
    for (std::int64_t g = 0; g < groups; ++g) {
      parts[g * kPanelOutputs] = static_cast<std::uint8_t>(rows.super.a[at * groups + g]);
    }
    if (!second) continue;
    write_parameter(out + 2 * (kPanelOutputs + lane), true, rows.super.m[at]);
    for (std::int64_t g = 0; g < groups; ++g) {
      parts[(groups + g) * kPanelOutputs] =
          static_cast<std::uint8_t>(rows.super.b[at * groups + g]);
    }
  }
}

// One code of an output whose bytes of a block start at `block`.
void pack_code(std::uint8_t* block, int bits, std::int64_t k, int code) {
  const std::int64_t step = k / 4, byte = k % 4;
  const auto put = [&](std::int64_t line, std::int64_t shift, int value) {
    std::uint8_t& at = block[line * kLine + byte];
    at = static_cast<std::uint8_t>(at | value << shift);
  };
  if (bits == 8) return put(step, 0, code);
  std::int64_t line = 0;
  if (bits >= 4) put(step % 4, step / 4 * 4, code & 15), code >>= 4, line = 4;
  if (bits == 2 || bits == 3 || bits == 6) {
    put(line + step / 4, step % 4 * 2, code & 3), code >>= 2, line += 2;
  }
  if (bits % 2 == 1) put(line, step, code & 1);
}

void pack_panel(const GridRows& rows, const QuantizedFormat& format, std::int64_t panel,
                std::uint8_t* out) {
  const int change = recoded(rows, format.bits).code;
  std::uint8_t* codes = out + panel_parameter_bytes(rows.inner, format);
  std::memset(out, 0, static_cast<std::size_t>(panel_bytes(rows.inner, format)));
  const std::int64_t first = panel * kPanelOutputs;
  for (std::int64_t lane = 0; lane < std::min(kPanelOutputs, rows.count - first); ++lane) {
    const std::int64_t row = first + lane;
    if (format.parameters == HeldAs::super) {
      pack_super_parameters(rows, format, row, lane, out);
    } else {
      pack_parameters(rows, format, row, lane, out);
    }
    const std::uint8_t* from = rows.codes + row * rows.inner;
    for (std::int64_t k = 0; k < rows.inner; ++k) {
      std::uint8_t* block = codes + k / kBlockInputs * block_code_bytes(format.bits) + lane * 4;
      pack_code(block, format.bits, k % kBlockInputs, static_cast<std::uint8_t>(from[k] + change));
    }
  }
}

}  // namespace

QuantizedFormat format_for(const GridRows& rows) {
  check_quantized(rows.inner > 0 && rows.inner % kBlockInputs == 0,
                  "inputs must be a multiple of 32", rows.inner);
  check_quantized(rows.bits >= 2 && rows.bits <= 8, "bits must be in [2, 8]", rows.bits);
  const bool halves = rows.group == kBlockInputs / 2 && rows.bits <= 6;
  check_quantized(
      halves || (rows.group > 0 && rows.group % kBlockInputs == 0 && rows.group <= rows.inner),
      "groups must be 16, of up to 6 bits, or a multiple of 32 and at most the inputs", rows.group);
  if (rows.table != nullptr) {
    check_quantized(rows.bits == 4 && rows.group >= kBlockInputs, "tables have 4 bits", rows.bits);
    check_quantized(rows.kind == SecondParameter::none,
                    "tables have a scale alone; second parameter",
                    static_cast<std::int64_t>(rows.kind));
  }
  if (rows.super.d != nullptr) {
    check_quantized(rows.inner % kSuperInputs == 0, "super-blocks need multiples of 256",
                    rows.inner);
    check_quantized(rows.bits <= 6 && rows.group <= kBlockInputs,
                    "super-blocks have groups of 16 or 32", rows.group);
    check_quantized(rows.kind != SecondParameter::zero, "super-blocks have no whole zeros; bits",
                    rows.bits);
    return {rows.bits, rows.kind, HeldAs::super, rows.group, rows.table};
  }
  const int bits = halves || rows.bits > 4 ? (rows.bits == 7 ? 8 : rows.bits) : 4;
  const Recoded change = recoded(rows, bits);
  const std::int64_t parameters = rows.count * groups_of(rows.inner, rows.group);
  bool half = true;
  for (std::int64_t i = 0; i < parameters && half; ++i) {
    half = is_half(rows.scale[i]) &&
           (rows.kind == SecondParameter::none || is_half(second_of(rows, change, i)));
  }
  return {bits, rows.kind, half ? HeldAs::f16 : HeldAs::f32, rows.group, rows.table};
}

std::int64_t quantized_bytes(std::int64_t columns, std::int64_t inner,
                             const QuantizedFormat& format) {
  return output_panels(columns) * panel_bytes(inner, format);
}

void quantized_pack(const GridRows& rows, const QuantizedFormat& format, void* weights) {
  const std::int64_t panels = output_panels(rows.count), bytes = panel_bytes(rows.inner, format);
#pragma omp parallel for schedule(static) if (panels > 4)
  for (std::int64_t panel = 0; panel < panels; ++panel) {
    pack_panel(rows, format, panel, static_cast<std::uint8_t*>(weights) + panel * bytes);
  }
}

}  // namespace attar::kernels
