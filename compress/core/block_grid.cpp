#include "compress/core/block_grid.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "compress/core/group_search.h"
#include "compress/kernels/block_search/block_search.h"

namespace attar {
namespace {

using kernels::GgmlBlock;
using kernels::GgmlBlockInfo;
using kernels::GroupFit;

constexpr int kRounds = 4;  // of codes, neighbours, least squares

float half(float value) { return round_to(value, at::kHalf); }

struct Kind {
  GgmlBlock type;
  GgmlBlockInfo info;
  GroupFit fit;
  int top;     // as block_search takes it
  int groups;  // of a super-block
};

Kind kind_of(BlockGrid block) {
  const GgmlBlock type = ggml_block_of(block);
  const GgmlBlockInfo& info = kernels::ggml_block_info(type);
  const GroupFit fit = info.minimum ? GroupFit::affine
                       : info.table ? GroupFit::table
                                    : GroupFit::signed_codes;
  return {type, info, fit, info.minimum ? info.top : info.middle, info.elements / info.group};
}

// Scales and zeros of a row as ggml's quantizer leaves them, but never beyond float16.
void reference_row(const Kind& kind, const float* values, std::int64_t columns, float* scale,
                   float* zero) {
  const auto blocks = static_cast<std::size_t>(columns / kind.info.elements);
  std::vector<std::uint8_t> bytes(blocks * static_cast<std::size_t>(kind.info.bytes)),
      codes(static_cast<std::size_t>(columns));
  std::vector<float> d(blocks), m(blocks);
  std::vector<std::int8_t> a(16 * blocks), b(16 * blocks);
  kernels::ggml_quantize(kind.type, values, columns, bytes.data());
  kernels::ggml_unpack(kind.type, bytes.data(), columns,
                       {codes.data(), d.data(), m.data(), a.data(), b.data()});
  for (std::size_t g = 0; g < blocks * static_cast<std::size_t>(kind.groups); ++g) {
    const std::size_t block = g / static_cast<std::size_t>(kind.groups);
    const float step = half(d[block]);  // finite, where ggml's is not
    scale[g] = kind.groups > 1 ? step * static_cast<float>(a[g]) : step;
    if (zero != nullptr) zero[g] = -(half(m[block]) * static_cast<float>(b[g]));
  }
}

// The search over one row. Vectors are indexed by group, but d and m by super-block.
class RowSearch {
 public:
  RowSearch(const Kind& kind, const std::vector<float>& cost)
      : kind_(kind),
        cost_(cost),
        columns_(static_cast<std::int64_t>(cost.size())),
        groups_(columns_ / kind.info.group),
        blocks_(columns_ / kind.info.elements) {
    const auto count = static_cast<std::size_t>(groups_);
    for (auto* part : {&scale_, &minimum_, &trial_scale_, &trial_offset_, &error_, &group_error_,
                       &a_, &b_, &trial_a_, &trial_b_}) {
      part->resize(count);
    }
    moments_.resize(6 * count);
    for (auto* part : {&d_, &m_, &best_d_, &best_m_})
      part->resize(static_cast<std::size_t>(blocks_));
    best_error_.resize(static_cast<std::size_t>(blocks_));
    best_a_.resize(count);
    best_b_.resize(count);
    mirrored_.resize(static_cast<std::size_t>(columns_));
  }

  void run(const float* values, float* scale, float* zero) {
    values_ = values;
    start();
    std::fill(best_error_.begin(), best_error_.end(), std::numeric_limits<float>::infinity());
    for (int round = 0; round < kRounds; ++round) {
      choose_codes();
      keep_better();
      if (round + 1 < kRounds) refit();
    }
    for (std::int64_t g = 0; g < groups_; ++g) {
      const std::int64_t block = g / kind_.groups;
      scale[g] = best_d_[block] * best_a_[g];
      if (zero != nullptr) zero[g] = -(best_m_[block] * best_b_[g]);
    }
  }

 private:
  void search(const float* values, float* scale, float* minimum) const {
    kernels::block_search({.fit = kind_.fit,
                           .size = kind_.info.group,
                           .top = kind_.top,
                           .first = -0.9f,
                           .stride = 0.05f,
                           .tries = 36,
                           .values = values,
                           .prices = cost_.data(),
                           .scale = scale,
                           .minimum = minimum,
                           .codes = nullptr},
                          groups_);
  }

  void price(const std::vector<float>& scale, const std::vector<float>& offset,
             std::vector<float>& error, float* moments) const {
    kernels::group_prices({.fit = kind_.fit,
                           .size = kind_.info.group,
                           .top = kind_.top,
                           .values = values_,
                           .prices = cost_.data(),
                           .scale = scale.data(),
                           .offset = offset.data(),
                           .error = error.data(),
                           .moments = moments},
                          groups_);
  }

  // Scales of the groups alone, and d and m that reach the largest of them.
  void start() {
    search(values_, scale_.data(), minimum_.data());
    if (!kind_.info.minimum) take_better_sign();
    for (std::int64_t block = 0; block < blocks_; ++block) {
      const float* scale = scale_.data() + block * kind_.groups;
      const float* minimum = minimum_.data() + block * kind_.groups;
      float extreme = 0, least = 0;
      for (int g = 0; g < kind_.groups; ++g) {
        if (std::abs(scale[g]) > std::abs(extreme)) extreme = scale[g];
        least = std::max(least, minimum[g]);
      }
      const int reach = kind_.groups == 1    ? 1
                        : kind_.info.minimum ? kind_.info.highest_part
                                             : kind_.info.lowest_part;
      d_[block] = half(extreme / static_cast<float>(reach));
      m_[block] = kind_.info.minimum ? half(least / static_cast<float>(reach)) : 0.0f;
    }
  }

  // Codes are not symmetric, so the mirrored values may have the better scale.
  void take_better_sign() {
    for (std::int64_t j = 0; j < columns_; ++j) mirrored_[j] = -values_[j];
    search(mirrored_.data(), trial_scale_.data(), minimum_.data());
    std::fill(minimum_.begin(), minimum_.end(), 0.0f);
    for (float& scale : trial_scale_) scale = -scale;
    price(scale_, minimum_, error_, nullptr);
    price(trial_scale_, minimum_, group_error_, nullptr);
    for (std::int64_t g = 0; g < groups_; ++g) {
      if (group_error_[g] < error_[g]) scale_[g] = trial_scale_[g];
    }
  }

  // Of the codes around scale / d and minimum / m the best of each group.
  void choose_codes() {
    std::fill(group_error_.begin(), group_error_.end(), std::numeric_limits<float>::infinity());
    const int most = kind_.groups == 1 ? 0 : 1;
    for (int up = -most; up <= most; ++up) {
      for (int side = kind_.info.minimum ? -1 : 0; side <= (kind_.info.minimum ? 1 : 0); ++side) {
        try_codes(up, side);
      }
    }
  }

  void try_codes(int up, int side) {
    const auto low = static_cast<float>(kind_.info.lowest_part);
    const auto high = static_cast<float>(kind_.info.highest_part);
    for (std::int64_t g = 0; g < groups_; ++g) {
      const float d = d_[g / kind_.groups], m = m_[g / kind_.groups];
      const float a = d != 0 ? round_even(clamped(scale_[g] / d, -1024, 1024)) : 0.0f;
      const float b = m != 0 ? round_even(clamped(minimum_[g] / m, 0, 1024)) : 0.0f;
      trial_a_[g] = kind_.groups == 1 ? 1.0f : clamped(a + static_cast<float>(up), low, high);
      trial_b_[g] = clamped(b + static_cast<float>(side), 0, high);
      trial_scale_[g] = d * trial_a_[g];
      trial_offset_[g] = -(m * trial_b_[g]);
    }
    price(trial_scale_, trial_offset_, error_, nullptr);
    for (std::int64_t g = 0; g < groups_; ++g) {
      if (!(error_[g] < group_error_[g])) continue;
      group_error_[g] = error_[g];
      a_[g] = trial_a_[g];
      b_[g] = trial_b_[g];
    }
  }

  void keep_better() {
    for (std::int64_t block = 0; block < blocks_; ++block) {
      float total = 0;
      for (int g = 0; g < kind_.groups; ++g) total += group_error_[block * kind_.groups + g];
      if (!(total < best_error_[block])) continue;
      best_error_[block] = total;
      best_d_[block] = d_[block];
      best_m_[block] = m_[block];
      const std::int64_t first = block * kind_.groups;
      std::copy_n(a_.begin() + first, kind_.groups, best_a_.begin() + first);
      std::copy_n(b_.begin() + first, kind_.groups, best_b_.begin() + first);
    }
  }

  // Codes q, a and b fixed: d and m of each super-block by least squares; then q fixed alone: the
  // scale and minimum that each group would have.
  void refit() {
    for (std::int64_t g = 0; g < groups_; ++g) {
      trial_scale_[g] = d_[g / kind_.groups] * a_[g];
      trial_offset_[g] = -(m_[g / kind_.groups] * b_[g]);
    }
    price(trial_scale_, trial_offset_, error_, moments_.data());
    for (std::int64_t block = 0; block < blocks_; ++block) refit_super(block);
    for (std::int64_t g = 0; g < groups_; ++g) refit_group(g);
  }

  void refit_super(std::int64_t block) {
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;
    for (int k = 0; k < kind_.groups; ++k) {
      const std::int64_t g = block * kind_.groups + k;
      const float* sum = moments_.data() + 6 * g;
      const double a = a_[g], b = b_[g];
      aa += a * a * static_cast<double>(sum[2]);
      ab -= a * b * static_cast<double>(sum[1]);
      bb += b * b * static_cast<double>(sum[0]);
      ax += a * static_cast<double>(sum[4]);
      bx -= b * static_cast<double>(sum[3]);
    }
    const double spread = aa * bb - ab * ab;
    double d = aa > 0 ? ax / aa : 0, m = 0;
    if (kind_.info.minimum && spread > 1e-9 * aa * bb) {
      const double both = (ax * bb - bx * ab) / spread;
      m = (bx * aa - ax * ab) / spread;
      if (m > 0) d = both;
      m = std::max(m, 0.0);
    }
    const float new_d = half(static_cast<float>(d)), new_m = half(static_cast<float>(m));
    if (!std::isfinite(new_d) || new_d == 0 || !std::isfinite(new_m)) return;
    d_[block] = new_d;
    m_[block] = new_m;
  }

  void refit_group(std::int64_t g) {
    const float* sum = moments_.data() + 6 * g;
    const double p = sum[0], q = sum[1], qq = sum[2], x = sum[3], qx = sum[4];
    double scale = qq > 0 ? qx / qq : 0, minimum = 0;
    const double spread = p * qq - q * q;
    if (kind_.info.minimum && spread > 1e-9 * p * qq) {
      minimum = -(x * qq - q * qx) / spread;
      if (minimum > 0) scale = (p * qx - q * x) / spread;
      minimum = std::max(minimum, 0.0);
    }
    if (!std::isfinite(scale) || scale == 0 || !std::isfinite(minimum)) return;
    scale_[g] = static_cast<float>(scale);
    minimum_[g] = static_cast<float>(minimum);
  }

  const Kind& kind_;
  const std::vector<float>& cost_;
  std::int64_t columns_, groups_, blocks_;
  const float* values_ = nullptr;
  std::vector<float> scale_, minimum_, trial_scale_, trial_offset_, error_, group_error_;
  std::vector<float> a_, b_, trial_a_, trial_b_, best_a_, best_b_;
  std::vector<float> d_, m_, best_d_, best_m_, best_error_;
  std::vector<float> moments_, mirrored_;
};

// d with x[i] = d * whole number in [low, high] for all of them; codes into `parts`.
std::optional<float> common_step(const float* x, int count, int low, int high, float sign,
                                 std::int8_t* parts) {
  float extreme = 0;
  for (int i = 0; i < count; ++i) {
    if (std::abs(x[i]) > std::abs(extreme)) extreme = x[i];
  }
  std::fill_n(parts, count, std::int8_t{0});
  if (extreme == 0) return 0.0f;
  const int most = std::max(high, -low);
  for (int k = most; k >= 1; --k) {
    for (const int whole : {k, -k}) {
      if (whole < low || whole > high) continue;
      const float d = sign * extreme / static_cast<float>(whole);
      bool holds = half(d) == d && d != 0;
      for (int i = 0; i < count && holds; ++i) {
        const float code = round_even(clamped(sign * x[i] / d, -1024, 1024));
        holds = d * code == sign * x[i] && code >= static_cast<float>(low) &&
                code <= static_cast<float>(high);
        parts[i] = static_cast<std::int8_t>(static_cast<int>(code));
      }
      if (holds) return d;
    }
  }
  return std::nullopt;
}

}  // namespace

GgmlBlock ggml_block_of(BlockGrid grid) {
  switch (grid) {
    case BlockGrid::kQ2K:
      return GgmlBlock::q2_k;
    case BlockGrid::kQ3K:
      return GgmlBlock::q3_k;
    case BlockGrid::kQ4K:
      return GgmlBlock::q4_k;
    case BlockGrid::kQ5K:
      return GgmlBlock::q5_k;
    case BlockGrid::kQ6K:
      return GgmlBlock::q6_k;
    case BlockGrid::kIq4Nl:
      return GgmlBlock::iq4_nl;
    default:
      return GgmlBlock::iq4_xs;
  }
}

Grid choose_block_grid(const at::Tensor& values, BlockGrid block, bool search,
                       const std::vector<float>& cost) {
  const QuantScheme scheme = block_scheme(block);
  const std::int64_t rows = values.size(0), columns = values.size(1);
  const std::int64_t groups = scheme.groups(columns);
  Grid grid{scheme, at::empty({rows, groups}, at::kFloat), {}};
  if (scheme.zero_point == ZeroPoint::kMinimum) grid.zero = at::empty_like(grid.scale);
  const Kind kind = kind_of(block);
  const float* data = values.const_data_ptr<float>();
  float* scale = grid.scale.data_ptr<float>();
  float* zero = grid.zero.defined() ? grid.zero.data_ptr<float>() : nullptr;
  at::parallel_for(0, rows, 1 + (1 << 12) / columns, [&](std::int64_t begin, std::int64_t end) {
    RowSearch by_cost(kind, cost);
    for (std::int64_t row = begin; row < end; ++row) {
      float* const row_zero = zero == nullptr ? nullptr : zero + row * groups;
      if (search) {
        by_cost.run(data + row * columns, scale + row * groups, row_zero);
      } else {
        reference_row(kind, data + row * columns, columns, scale + row * groups, row_zero);
      }
    }
  });
  return grid;
}

std::optional<SuperParts> super_parts(BlockGrid block, const float* scale, const float* zero) {
  const Kind kind = kind_of(block);
  SuperParts parts;
  const int low = kind.info.lowest_part, high = kind.info.highest_part;
  const auto d = common_step(scale, kind.groups, low, high, 1, parts.a);
  if (!d) return std::nullopt;
  parts.d = *d;
  if (!kind.info.minimum) return parts;
  const auto m = common_step(zero, kind.groups, low, high, -1, parts.b);
  if (!m) return std::nullopt;
  parts.m = *m;
  return parts;
}

}  // namespace attar
