#include "compress/linalg/blas.h"

#include <omp.h>

#include <algorithm>
#include <cstdint>

// The Fortran symbols; a row-major matrix is the transpose of a column-major one.
extern "C" {
void sgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k,
            const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
            const float* beta, float* c, const int* ldc);
void dgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k,
            const double* alpha, const double* a, const int* lda, const double* b, const int* ldb,
            const double* beta, double* c, const int* ldc);
// Of MKL; absent where LibTorch carries another BLAS.
__attribute__((weak)) int MKL_Set_Num_Threads_Local(int threads);
}

namespace attar::linalg {
namespace {

void multiply(const char* trans_a, const char* trans_b, int m, int n, int k, float alpha,
              const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  sgemm_(trans_b, trans_a, &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &ldc);
}
void multiply(const char* trans_a, const char* trans_b, int m, int n, int k, double alpha,
              const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  dgemm_(trans_b, trans_a, &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &ldc);
}

template <class T>
void gemm_by_rows(bool transposed_a, bool transposed_b, int m, int n, int k, T alpha, const T* a,
                  int lda, const T* b, int ldb, T beta, T* c, int ldc) {
  constexpr int kRows = 192;                               // of C in a piece
  constexpr std::int64_t kShared = std::int64_t{1} << 22;  // multiplications worth other threads
  const int pieces = (m + kRows - 1) / kRows;
  const bool shared = pieces > 1 && !omp_in_parallel() && std::int64_t{m} * n * k >= kShared;
#pragma omp parallel for schedule(dynamic, 1) if (shared)
  for (int piece = 0; piece < pieces; ++piece) {
    const std::int64_t row = std::int64_t{piece} * kRows;
    keep_blas_on_one_thread();
    multiply(transposed_a ? "T" : "N", transposed_b ? "T" : "N",
             std::min<int>(kRows, m - static_cast<int>(row)), n, k, alpha,
             a + (transposed_a ? row : row * lda), lda, b, ldb, beta, c + row * ldc, ldc);
  }
}

}  // namespace

int set_blas_threads(int count) {
  return MKL_Set_Num_Threads_Local != nullptr ? MKL_Set_Num_Threads_Local(count) : 0;
}

int keep_blas_on_one_thread() { return set_blas_threads(1); }

void gemm(bool transposed_a, bool transposed_b, int m, int n, int k, float alpha, const float* a,
          int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  gemm_by_rows(transposed_a, transposed_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
void gemm(bool transposed_a, bool transposed_b, int m, int n, int k, double alpha, const double* a,
          int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  gemm_by_rows(transposed_a, transposed_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

}  // namespace attar::linalg
