#include "compress/core/numerics.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "compress/core/errors.h"
#include "compress/linalg/blas.h"
#include "compress/linalg/product.h"

namespace attar {
namespace {

const char* strict_mode() {
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) {
    return "AVX512,STRICT";
  }
  if (__builtin_cpu_supports("avx2")) return "AVX2,STRICT";
#endif
  return "COMPATIBLE";
}

Numerics probe() {
  Numerics found;
  setenv("MKL_CBWR", strict_mode(), /*overwrite=*/0);
  found.blas_mode = std::getenv("MKL_CBWR");

  constexpr std::int64_t kRows = 131, kInner = 192, kColumns = 421;
  const int before = threads();
  const at::Tensor a = at::arange(kRows * kInner, at::kFloat).mul(0.37).sin().reshape({kRows, -1});
  const at::Tensor b = at::arange(kInner * kColumns, at::kFloat).mul(0.11).cos();
  const at::Tensor right = b.reshape({kColumns, kInner});
  const at::Tensor wide_a = a.to(at::kDouble), wide_right = right.t().to(at::kDouble);
  set_threads(1);
  const at::Tensor whole = linalg::product(a, right), wide = at::mm(wide_a, wide_right);
  const std::array<std::int64_t, 4> counts = {1, 7, 64, 130};
  found.rows_independent = std::all_of(counts.begin(), counts.end(), [&](std::int64_t rows) {
    return at::equal(linalg::product(a.narrow(0, 0, rows), right), whole.narrow(0, 0, rows));
  });
  set_threads(2);
  found.threads_independent =
      at::equal(linalg::product(a, right), whole) && at::equal(at::mm(wide_a, wide_right), wide);
  set_threads(before);
  return found;
}

}  // namespace

const Numerics& set_up_numerics() {
  static const Numerics found = probe();
  return found;
}

namespace {

int checked(int count) {
  require<UsageError>(count >= 1 && count <= 1024, "threads", "must be in [1, 1024], got ", count);
  return count;
}

}  // namespace

void set_threads(int count) {
  checked(count);
  at::set_num_threads(count);
  omp_set_num_threads(count);
  linalg::keep_blas_on_one_thread();
}

int threads() { return at::get_num_threads(); }

ThreadScope::ThreadScope(int count) : before_(threads()), blas_before_(0) {
  checked(count);
  blas_before_ = linalg::keep_blas_on_one_thread();
  set_threads(count);
}

ThreadScope::~ThreadScope() {
  at::set_num_threads(before_);
  omp_set_num_threads(before_);
  linalg::set_blas_threads(blas_before_);
}

}  // namespace attar
