// The Fortran symbols of the BLAS that LibTorch carries; there is no second BLAS in a program.
// All matrices are column-major: a row-major matrix is its transpose.
#pragma once

extern "C" {
void sgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k,
            const float* alpha, const float* a, const int* lda, const float* b, const int* ldb,
            const float* beta, float* c, const int* ldc);
void dgemm_(const char* trans_a, const char* trans_b, const int* m, const int* n, const int* k,
            const double* alpha, const double* a, const int* lda, const double* b, const int* ldb,
            const double* beta, double* c, const int* ldc);
}

namespace attar::linalg {

// C = alpha · op(A) · op(B) + beta · C, row-major. op(A) is [m, k], op(B) is [k, n]; `transposed_a`
// says that A is stored as [k, m]. Leading dimensions count elements from a row to the next.
inline void gemm(bool transposed_a, bool transposed_b, int m, int n, int k, float alpha,
                 const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  sgemm_(transposed_b ? "T" : "N", transposed_a ? "T" : "N", &n, &m, &k, &alpha, b, &ldb, a, &lda,
         &beta, c, &ldc);
}

inline void gemm(bool transposed_a, bool transposed_b, int m, int n, int k, double alpha,
                 const double* a, int lda, const double* b, int ldb, double beta, double* c,
                 int ldc) {
  dgemm_(transposed_b ? "T" : "N", transposed_a ? "T" : "N", &n, &m, &k, &alpha, b, &ldb, a, &lda,
         &beta, c, &ldc);
}

}  // namespace attar::linalg
