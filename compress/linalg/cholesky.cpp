#include "compress/linalg/cholesky.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "compress/core/errors.h"
#include "compress/linalg/blas.h"

namespace attar::linalg {
namespace {

constexpr int kBlock = 128;  // side of a product's blocks
constexpr int kLeaf = 32;    // side of what is factored or inverted by plain loops

struct Square {
  double* at;
  int side;
  int stride;

  double* block(int i, int j) const { return at + static_cast<std::int64_t>(i) * stride + j; }
};

Square as_square(at::Tensor& matrix, std::string_view where) {
  require(matrix.dim() == 2 && matrix.size(0) == matrix.size(1) && matrix.size(0) < (1 << 15) &&
              matrix.scalar_type() == at::kDouble && matrix.is_contiguous(),
          where, "the matrix must be square, float64, contiguous, with a side below 32768, got ",
          matrix.sizes(), " of ", c10::toString(matrix.scalar_type()), "; convert it first");
  const int side = static_cast<int>(matrix.size(0));
  return {matrix.data_ptr<double>(), side, side};
}

void clear_above_diagonal(const Square& a) {
  for (int i = 0; i + 1 < a.side; ++i) std::fill_n(a.block(i, i + 1), a.side - i - 1, 0.0);
}

// J A J: rows and columns in reverse order, in place.
void reverse_order(const Square& a) {
  std::reverse(a.at, a.at + static_cast<std::int64_t>(a.side) * a.side);
}

// Plain lower Cholesky in place; the first bad pivot or -1.
int factor_leaf(const Square& a) {
  for (int j = 0; j < a.side; ++j) {
    double* row_j = a.block(j, 0);
    double pivot = row_j[j];
    for (int k = 0; k < j; ++k) pivot -= row_j[k] * row_j[k];
    if (!(pivot > 0) || !std::isfinite(pivot)) return j;
    row_j[j] = std::sqrt(pivot);
    for (int i = j + 1; i < a.side; ++i) {
      double* row_i = a.block(i, 0);
      double sum = row_i[j];
      for (int k = 0; k < j; ++k) sum -= row_i[k] * row_j[k];
      row_i[j] = sum / row_j[j];
    }
  }
  return -1;
}

// rows · L^-T in place: forward substitution of every row.
void solve_rows(const Square& lower, double* rows, int count, int stride) {
  for (int i = 0; i < count; ++i) {
    double* x = rows + static_cast<std::int64_t>(i) * stride;
    for (int j = 0; j < lower.side; ++j) {
      const double* row = lower.block(j, 0);
      double sum = x[j];
      for (int k = 0; k < j; ++k) sum -= x[k] * row[k];
      x[j] = sum / row[j];
    }
  }
}

// Lower Cholesky in place by panels of `panel` columns, each factored by smaller panels.
int factor(const Square& a, int panel) {
  if (a.side <= kLeaf) return factor_leaf(a);
  for (int j = 0; j < a.side; j += panel) {
    const int width = std::min(panel, a.side - j);
    const Square diagonal{a.block(j, j), width, a.stride};
    const int bad = factor(diagonal, kLeaf);
    if (bad >= 0) return j + bad;
    const int below = j + width;
    const int left = a.side - below;
    if (left == 0) continue;
    // The panel below: solved leaf by leaf, the rest of its columns updated by products.
    for (int c = 0; c < width; c += kLeaf) {
      const int leaf = std::min(kLeaf, width - c);
      solve_rows({diagonal.block(c, c), leaf, a.stride}, a.block(below, j + c), left, a.stride);
      if (const int rest = width - c - leaf; rest > 0) {
        gemm(false, true, left, rest, leaf, -1.0, a.block(below, j + c), a.stride,
             diagonal.block(c + leaf, c), a.stride, 1.0, a.block(below, j + c + leaf), a.stride);
      }
    }
    // The lower triangle that remains, by block columns.
    for (int i = below; i < a.side; i += panel) {
      gemm(false, true, a.side - i, std::min(panel, a.side - i), width, -1.0, a.block(i, j),
           a.stride, a.block(i, j), a.stride, 1.0, a.block(i, i), a.stride);
    }
  }
  return -1;
}

// Inverse of a lower triangle in place, halving: [A 0; B C]^-1 = [A^-1 0; -C^-1 B A^-1, C^-1].
void invert(const Square& a, double* scratch) {
  if (a.side <= kLeaf) {
    for (int j = 0; j < a.side; ++j) {
      for (int i = j; i < a.side; ++i) {
        double sum = i == j ? 1.0 : 0.0;
        for (int k = j; k < i; ++k) sum -= a.block(i, 0)[k] * scratch[k * kLeaf + j];
        scratch[i * kLeaf + j] = sum / a.block(i, 0)[i];
      }
    }
    for (int i = 0; i < a.side; ++i) std::copy_n(scratch + i * kLeaf, i + 1, a.block(i, 0));
    return;
  }
  const int half = (a.side / 2 + kLeaf - 1) / kLeaf * kLeaf;
  const int rest = a.side - half;
  const Square upper{a.at, half, a.stride};
  const Square lower{a.block(half, half), rest, a.stride};
  invert(upper, scratch);
  invert(lower, scratch);
  // scratch = B A^-1, B = -C^-1 scratch; both factors are triangular, so products run by blocks.
  double* b = a.block(half, 0);
  for (int j = 0; j < half; j += kBlock) {
    const int width = std::min(kBlock, half - j);
    gemm(false, false, rest, width, half - j, 1.0, b + j, a.stride, upper.block(j, j), a.stride,
         0.0, scratch + j, half);
  }
  for (int i = 0; i < rest; i += kBlock) {
    const int height = std::min(kBlock, rest - i);
    gemm(false, false, height, half, i + height, -1.0, lower.block(i, 0), a.stride, scratch, half,
         0.0, b + static_cast<std::int64_t>(i) * a.stride, a.stride);
  }
}

}  // namespace

TriangularFactor cholesky(at::Tensor matrix) {
  const Square square = as_square(matrix, "cholesky");
  const int bad = factor(square, kBlock);
  if (bad >= 0) return {{}, bad};
  clear_above_diagonal(square);
  return {std::move(matrix), -1};
}

at::Tensor invert_lower(at::Tensor lower) {
  const Square square = as_square(lower, "invert_lower");
  const auto side = static_cast<std::size_t>(square.side);
  std::vector<double> scratch(std::max<std::size_t>(side * side / 4 + side, kLeaf * kLeaf));
  invert(square, scratch.data());
  clear_above_diagonal(square);
  return lower;
}

TriangularFactor reverse_cholesky_inverse(at::Tensor matrix) {
  reverse_order(as_square(matrix, "reverse_cholesky_inverse"));
  const std::int64_t n = matrix.size(0);
  TriangularFactor result = linalg::cholesky(std::move(matrix));
  if (!result.ok()) {
    result.bad_pivot = n - 1 - result.bad_pivot;
    return result;
  }
  result.factor = invert_lower(std::move(result.factor));
  reverse_order(as_square(result.factor, "reverse_cholesky_inverse"));
  return result;
}

}  // namespace attar::linalg
