// Same bits for any thread count, batch and chunk: what has to hold before the first product.
#pragma once

#include <string>

namespace attar {

struct Numerics {
  std::string blas_mode;          // value given to MKL_CBWR, empty when none was accepted
  bool rows_independent = false;  // rows of a product have the same bits for every number of rows
  bool threads_independent = false;  // and for 1 and 2 threads
};

// Asks the BLAS, which multiplies in float64, for reproducible products (MKL_CBWR; a strict mode
// costs nothing) on one thread, and checks by small products whether rows (of float32, on attar's
// own kernels) and threads are in fact independent. Call before the first product; later calls
// return the first answer.
const Numerics& set_up_numerics();

// Threads of every parallel region (ATen, OpenMP): one pool. The BLAS keeps to one of them.
void set_threads(int count);
int threads();

// The same until it is destroyed, in a process that has work of its own on these threads (Python).
class ThreadScope {
 public:
  explicit ThreadScope(int count);
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;
  ~ThreadScope();

 private:
  int before_, blas_before_;
};

}  // namespace attar
