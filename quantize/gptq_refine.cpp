#include "quantize/gptq_refine.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "compress/core/grid.h"
#include "compress/core/group_rule.h"
#include "compress/linalg/blas.h"
#include "compress/linalg/clones.h"
#include "compress/linalg/quadratic_loss.h"

namespace attar {
namespace {

constexpr std::int64_t kRowChunk = 256;  // rows of one product
constexpr int kBlock = 128;              // columns of one block of the descent

double sum(const float* a, std::int64_t count) {
  double total = 0;
  for (std::int64_t j = 0; j < count; ++j) total += static_cast<double>(a[j]);
  return total;
}

// Normal equations A s = b of one row: [side, side] and [side], A symmetric.
struct NormalEquations {
  explicit NormalEquations(std::int64_t count)
      : side(count),
        matrix(static_cast<std::size_t>(count * count)),
        target(static_cast<std::size_t>(count)) {}

  double objective(const std::vector<double>& s) const {  // s A s - 2 b s
    double total = 0;
    for (std::int64_t i = 0; i < side; ++i) {
      double product = 0;
      for (std::int64_t j = 0; j < side; ++j) product += matrix[i * side + j] * s[j];
      total += s[i] * (product - 2 * target[i]);
    }
    return total;
  }

  // Solves in place by Cholesky with a ridge of 1e-9 of the diagonal; false if that fails.
  bool solve(std::vector<double>& solution) const {
    std::vector<double> l = matrix;
    solution = target;
    for (std::int64_t j = 0; j < side; ++j) {
      double pivot = l[j * side + j] * (1 + 1e-9);
      for (std::int64_t k = 0; k < j; ++k) pivot -= l[j * side + k] * l[j * side + k];
      if (!(pivot > 1e-12 * matrix[j * side + j]) || !std::isfinite(pivot)) return false;
      pivot = std::sqrt(pivot);
      l[j * side + j] = pivot;
      for (std::int64_t i = j + 1; i < side; ++i) {
        double value = l[i * side + j];
        for (std::int64_t k = 0; k < j; ++k) value -= l[i * side + k] * l[j * side + k];
        l[i * side + j] = value / pivot;
      }
    }
    for (std::int64_t i = 0; i < side; ++i) {
      for (std::int64_t k = 0; k < i; ++k) solution[i] -= l[i * side + k] * solution[k];
      solution[i] /= l[i * side + i];
    }
    for (std::int64_t i = side - 1; i >= 0; --i) {
      for (std::int64_t k = i + 1; k < side; ++k) solution[i] -= l[k * side + i] * solution[k];
      solution[i] /= l[i * side + i];
    }
    return true;
  }

  std::int64_t side;
  std::vector<double> matrix;
  std::vector<double> target;
};

// Refits the rows [first, first + count).
class Refit {
 public:
  Refit(const at::Tensor& weight, const at::Tensor& hessian, QuantizedWeight& quantized)
      : columns_(weight.size(1)),
        groups_(quantized.scheme.groups(columns_)),
        group_(columns_ / groups_),
        real_zero_(quantized.scheme.zero_point == ZeroPoint::kMinimum),
        weight_(weight.const_data_ptr<float>()),
        hessian_(hessian.const_data_ptr<float>()),
        quantized_(quantized),
        column_sums_(real_zero_ ? hessian_column_sums(hessian) : at::Tensor()) {}

  std::int64_t rows(std::int64_t first, std::int64_t count) {
    const std::int64_t unknowns = real_zero_ ? 2 * groups_ : groups_;
    std::vector<NormalEquations> equations(static_cast<std::size_t>(count),
                                           NormalEquations(unknowns));
    std::vector<float> steps(static_cast<std::size_t>(count * columns_));
    fill_steps(first, count, steps.data());
    std::vector<float> product(static_cast<std::size_t>(count * columns_));
    for (std::int64_t g = 0; g < groups_; ++g) {
      const auto side = static_cast<int>(columns_);
      linalg::gemm(false, false, static_cast<int>(count), side, static_cast<int>(group_), 1.0f,
                   steps.data() + g * group_, side, hessian_ + g * group_ * columns_, side, 0.0f,
                   product.data(), side);
      at::parallel_for(0, count, 64, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t r = begin; r < end; ++r) {
          add_group(g, steps.data() + r * columns_, product.data() + r * columns_,
                    weight_ + (first + r) * columns_, equations[r]);
        }
      });
    }
    std::atomic<std::int64_t> changed = 0;
    at::parallel_for(0, count, 32, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        if (take_solution(first + r, equations[r])) ++changed;
      }
    });
    return changed;
  }

 private:
  // Row g: column sums of H over the rows of group g, [G, I].
  at::Tensor hessian_column_sums(const at::Tensor& hessian) const {
    return hessian.reshape({groups_, group_, columns_}).sum(1).contiguous();
  }

  // code - zero (code for real minima): what a scale multiplies.
  void fill_steps(std::int64_t first, std::int64_t count, float* steps) const {
    const std::uint8_t* codes = quantized_.codes.const_data_ptr<std::uint8_t>();
    const auto middle = static_cast<float>(quantized_.scheme.levels() / 2);
    const bool integer = quantized_.scheme.zero_point == ZeroPoint::kInteger;
    const float* zeros = integer ? quantized_.zero.const_data_ptr<float>() : nullptr;
    for (std::int64_t r = 0; r < count; ++r) {
      for (std::int64_t j = 0; j < columns_; ++j) {
        const float zero = real_zero_ ? 0.0f
                           : integer  ? zeros[(first + r) * groups_ + j / group_]
                                      : middle;
        steps[r * columns_ + j] = static_cast<float>(codes[(first + r) * columns_ + j]) - zero;
      }
    }
  }

  // product = steps of group g times H; adds row g (and G + g) of the equations.
  void add_group(std::int64_t g, const float* steps, const float* product, const float* weight,
                 NormalEquations& equations) const {
    const std::int64_t side = equations.side;
    double* matrix = equations.matrix.data();
    equations.target[g] = linalg::dot(product, weight, columns_);
    for (std::int64_t h = 0; h < groups_; ++h) {
      matrix[g * side + h] = linalg::dot(product + h * group_, steps + h * group_, group_);
    }
    if (!real_zero_) return;
    const float* sums = column_sums_.const_data_ptr<float>() + g * columns_;
    equations.target[groups_ + g] = linalg::dot(sums, weight, columns_);
    for (std::int64_t h = 0; h < groups_; ++h) {
      const double mixed = sum(product + h * group_, group_);
      matrix[g * side + groups_ + h] = mixed;
      matrix[(groups_ + h) * side + g] = mixed;
      matrix[(groups_ + g) * side + groups_ + h] = sum(sums + h * group_, group_);
    }
  }

  bool take_solution(std::int64_t row, const NormalEquations& equations) {
    float* scale = quantized_.scale.data_ptr<float>() + row * groups_;
    float* zero = real_zero_ ? quantized_.zero.data_ptr<float>() + row * groups_ : nullptr;
    std::vector<double> before(static_cast<std::size_t>(equations.side));
    for (std::int64_t g = 0; g < groups_; ++g) {
      before[g] = static_cast<double>(scale[g]);
      if (real_zero_) before[groups_ + g] = static_cast<double>(zero[g]);
    }
    std::vector<double> after;
    if (!equations.solve(after)) return false;
    const at::ScalarType type = quantized_.scheme.scale_type;
    for (std::int64_t g = 0; g < groups_; ++g) {
      const double ratio = after[g] / before[g];
      if (!(ratio > 0.25 && ratio < 4)) return false;
      after[g] = static_cast<double>(round_scale(static_cast<float>(after[g]), type));
      if (real_zero_) {
        after[groups_ + g] =
            static_cast<double>(round_to(static_cast<float>(after[groups_ + g]), type));
      }
    }
    if (!(equations.objective(after) < equations.objective(before))) return false;
    for (std::int64_t g = 0; g < groups_; ++g) {
      scale[g] = static_cast<float>(after[g]);
      if (real_zero_) zero[g] = static_cast<float>(after[groups_ + g]);
    }
    return true;
  }

  std::int64_t columns_;
  std::int64_t groups_;
  std::int64_t group_;
  bool real_zero_;
  const float* weight_;
  const float* hessian_;
  QuantizedWeight& quantized_;
  at::Tensor column_sums_;
};

// One row of one block of the descent.
struct RowDescent {
  float* gradient;         // [width]: (D H) of these columns, kept up to date
  const float* hessian;    // [width, width] part of H
  std::int64_t stride;     // of H
  const GroupGrid* grids;  // [width]
  std::uint8_t* codes;     // [width]
  float* moves;            // [width]: change of the value
  ZeroPoint zero_point;
  float top;
  const std::uint8_t* keep;  // [width] or null: a code where it is 0 does not move
};

ATTAR_CLONES
std::int64_t descend_row(const RowDescent& row, std::int64_t width) {
  std::int64_t moved = 0;
  for (std::int64_t j = 0; j < width; ++j) {
    const float* hessian = row.hessian + j * row.stride;
    const auto old_code = static_cast<float>(row.codes[j]);
    const float old_value = value_of(old_code, row.grids[j], row.zero_point);
    const float target = old_value - row.gradient[j] / hessian[j];
    const float code = code_of(target, row.grids[j], row.zero_point, row.top);
    row.moves[j] = 0;
    if (code == old_code || (row.keep != nullptr && row.keep[j] == 0)) continue;
    const float move = value_of(code, row.grids[j], row.zero_point) - old_value;
    // The change of the loss; asks for a clear gain, so that rounding errors cannot cycle.
    const float gain = -move * (2 * row.gradient[j] + move * hessian[j]);
    if (!(gain > 1e-4f * move * move * hessian[j])) continue;
    row.moves[j] = move;
    row.codes[j] = static_cast<std::uint8_t>(static_cast<int>(code));
    ++moved;
    for (std::int64_t k = j + 1; k < width; ++k) row.gradient[k] += move * hessian[k];
  }
  return moved;
}

}  // namespace

std::int64_t refit_scales(const at::Tensor& weight, const at::Tensor& hessian,
                          QuantizedWeight& quantized) {
  Refit refit(weight, hessian, quantized);
  std::int64_t changed = 0;
  for (std::int64_t first = 0; first < weight.size(0); first += kRowChunk) {
    changed += refit.rows(first, std::min(kRowChunk, weight.size(0) - first));
  }
  return changed;
}

std::int64_t descend(const at::Tensor& weight, const at::Tensor& hessian,
                     QuantizedWeight& quantized, const at::Tensor& keep) {
  const std::int64_t rows = weight.size(0);
  const std::int64_t columns = weight.size(1);
  const std::int64_t groups = quantized.scheme.groups(columns);
  const std::int64_t group = columns / groups;
  const Grid grid{quantized.scheme, quantized.scale, quantized.zero};
  at::Tensor gradient = at::mm(dequantize(quantized.codes, grid) - weight, hessian);
  at::Tensor moves = at::empty({rows, kBlock}, at::kFloat);
  const bool symmetric = quantized.scheme.zero_point == ZeroPoint::kSymmetric;
  const float* scale = quantized.scale.const_data_ptr<float>();
  const float* zero = symmetric ? nullptr : quantized.zero.const_data_ptr<float>();
  const auto middle = static_cast<float>(quantized.scheme.levels() / 2);
  const std::uint8_t* kept = keep.defined() ? keep.const_data_ptr<std::uint8_t>() : nullptr;
  std::atomic<std::int64_t> moved = 0;
  for (std::int64_t begin = 0; begin < columns; begin += kBlock) {
    const std::int64_t width = std::min<std::int64_t>(kBlock, columns - begin);
    at::parallel_for(0, rows, 32, [&](std::int64_t first, std::int64_t last) {
      std::vector<GroupGrid> grids(static_cast<std::size_t>(width));
      std::vector<float> local(static_cast<std::size_t>(width));
      for (std::int64_t r = first; r < last; ++r) {
        for (std::int64_t k = 0; k < width; ++k) {
          const std::int64_t index = r * groups + (begin + k) / group;
          grids[k] = {scale[index], symmetric ? middle : zero[index]};
        }
        std::copy_n(gradient.data_ptr<float>() + r * columns + begin, width, local.data());
        moved += descend_row(
            {local.data(), hessian.const_data_ptr<float>() + begin * columns + begin, columns,
             grids.data(), quantized.codes.data_ptr<std::uint8_t>() + r * columns + begin,
             moves.data_ptr<float>() + r * width, quantized.scheme.zero_point,
             static_cast<float>(quantized.scheme.levels() - 1),
             kept == nullptr ? nullptr : kept + r * columns + begin},
            width);
      }
    });
    const auto side = static_cast<int>(columns);
    linalg::gemm(false, false, static_cast<int>(rows), side, static_cast<int>(width), 1.0f,
                 moves.data_ptr<float>(), static_cast<int>(width),
                 hessian.const_data_ptr<float>() + begin * columns, side, 1.0f,
                 gradient.data_ptr<float>(), side);
  }
  return moved;
}

}  // namespace attar
