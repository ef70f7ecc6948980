// The BLAS that LibTorch carries, on one thread; there is no second BLAS in a program. How it
// shares a product out to threads may decide the last bits of the result (MKL on AMD does), so it
// never does: what is worth more than one thread is cut into fixed pieces here. Matrices of float32
// are multiplied by product.h; what is left for the BLAS is float64 and small pieces.
#pragma once

namespace attar::linalg {

// From here on products and factorizations of the BLAS that the calling thread asks for run on it
// alone; at::mm and its like among them. The number that there was, for set_blas_threads.
int keep_blas_on_one_thread();
int set_blas_threads(int count);  // of the calling thread; 0: as many as the process has

// C = alpha · op(A) · op(B) + beta · C, row-major. op(A) is [m, k], op(B) is [k, n]; `transposed_a`
// says that A is stored as [k, m]. Leading dimensions count elements from a row to the next. The
// same bits for any number of threads.
void gemm(bool transposed_a, bool transposed_b, int m, int n, int k, float alpha, const float* a,
          int lda, const float* b, int ldb, float beta, float* c, int ldc);
void gemm(bool transposed_a, bool transposed_b, int m, int n, int k, double alpha, const double* a,
          int lda, const double* b, int ldb, double beta, double* c, int ldc);

}  // namespace attar::linalg
