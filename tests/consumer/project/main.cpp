// A room that works on tensors, one that does not, and an error thrown in one and caught here.
#include <ATen/ops/eye.h>

#include <iostream>

#include "compress/core/errors.h"
#include "compress/linalg/cholesky.h"
#include "compress/tokenize/tokenizer.h"

int main() {
  const auto cholesky = attar::linalg::cholesky(at::eye(3, at::kDouble));
  if (!cholesky.ok() || cholesky.factor[1][1].item().toDouble() != 1.0) return 1;
  try {
    attar::load_tokenizer("no/such/folder");
  } catch (const std::exception& error) {
    std::cout << "as it should be: " << error.what() << '\n';
    return 0;
  }
  return 1;
}
