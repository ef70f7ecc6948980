#include "compress/core/code_rows.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <atomic>
#include <stdexcept>

#include "compress/core/block_grid.h"
#include "compress/kernels/block_search/block_search.h"

namespace attar {
namespace {

constexpr std::int64_t kSuperColumns = kernels::kGgmlSuperElements;

kernels::SecondParameter second_parameter(ZeroPoint zero_point) {
  switch (zero_point) {
    case ZeroPoint::kSymmetric:
      return kernels::SecondParameter::none;
    case ZeroPoint::kInteger:
      return kernels::SecondParameter::zero;
    case ZeroPoint::kMinimum:
      return kernels::SecondParameter::minimum;
  }
  throw std::logic_error("second_parameter: unknown zero point");
}

std::int64_t group_of(const QuantizedWeight& weight) {
  const std::int64_t inner = weight.codes.size(1), group = weight.scheme.group_size;
  return group == 0 ? inner : std::min(group, inner);
}

}  // namespace

bool multiplies_as_codes(const Weight& weight) {
  constexpr std::int64_t kBlock = 32;
  const auto* codes = std::get_if<QuantizedWeight>(&weight);
  if (codes == nullptr || codes->codes.numel() == 0) return false;
  if (codes->scheme.floating() && codes->scheme.block != BlockGrid::kMxfp4) return false;
  const int bits = codes->scheme.bits;
  const std::int64_t group = group_of(*codes);
  return bits >= 2 && bits <= 8 && codes->codes.size(1) % kBlock == 0 &&
         (group % kBlock == 0 || (group == kBlock / 2 && bits <= 6));
}

CodeRows::CodeRows(const QuantizedWeight& weight)
    : codes_(weight.codes.contiguous()),
      scale_(weight.scale.contiguous()),
      zero_(weight.zero.defined() ? weight.zero.contiguous() : at::Tensor()),
      rows_{codes_.const_data_ptr<std::uint8_t>(),
            scale_.const_data_ptr<float>(),
            zero_.defined() ? zero_.const_data_ptr<float>() : nullptr,
            codes_.size(0),
            codes_.size(1),
            group_of(weight),
            weight.scheme.bits,
            second_parameter(weight.scheme.zero_point)} {
  if (weight.scheme.table()) find_places();
  if (weight.scheme.block == BlockGrid::kMxfp4) double_levels();
  if (weight.scheme.block_columns() == kSuperColumns) find_supers(weight.scheme.block);
}

// Codes of 8 bits become places in the table of 16, if they all are there.
void CodeRows::find_places() {
  constexpr std::int64_t kNone = 16;
  std::uint8_t place_of[256];
  std::fill_n(place_of, 256, std::uint8_t{kNone});
  for (int i = 0; i < 16; ++i) place_of[128 + kernels::kTable16[i]] = static_cast<std::uint8_t>(i);
  at::Tensor places = at::empty_like(codes_);
  auto* out = places.mutable_data_ptr<std::uint8_t>();
  std::atomic<bool> all = true;
  at::parallel_for(0, codes_.numel(), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      out[i] = place_of[rows_.codes[i]];
      if (out[i] == kNone) all = false;
    }
  });
  if (!all) return;
  codes_ = places;
  rows_.codes = out;
  rows_.bits = 4;
  rows_.table = kernels::kTable16;
}

// The levels of MXFP4 are halves.
void CodeRows::double_levels() {
  static constexpr std::int8_t kTwice[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                             0, -1, -2, -3, -4, -6, -8, -12};
  scale_ = scale_ * 0.5;
  rows_.scale = scale_.const_data_ptr<float>();
  rows_.second = nullptr;
  rows_.kind = kernels::SecondParameter::none;
  rows_.table = kTwice;
}

// The scales and minima of every super-block apart, if float16 numbers hold them.
void CodeRows::find_supers(BlockGrid block) {
  const bool table = block == BlockGrid::kIq4Xs;
  const std::int64_t groups = kSuperColumns / rows_.group;
  const std::int64_t supers = rows_.count * rows_.inner / kSuperColumns;
  if (table && rows_.table == nullptr) return;
  d_.resize(static_cast<std::size_t>(supers)), m_.resize(d_.size());
  a_.resize(static_cast<std::size_t>(supers * groups)), b_.resize(a_.size());
  std::atomic<bool> held = true;
  at::parallel_for(0, supers, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end && held; ++i) {
      const auto parts = super_parts(block, rows_.scale + i * groups,
                                     rows_.second ? rows_.second + i * groups : nullptr);
      if (!parts) held = false;
      if (!parts) return;
      d_[static_cast<std::size_t>(i)] = parts->d;
      m_[static_cast<std::size_t>(i)] = -parts->m;
      std::copy_n(parts->a, groups, a_.begin() + i * groups);
      std::copy_n(parts->b, groups, b_.begin() + i * groups);
    }
  });
  if (held) rows_.super = {d_.data(), m_.data(), a_.data(), b_.data()};
}

}  // namespace attar
