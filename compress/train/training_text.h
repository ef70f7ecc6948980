// Tokens of documents -> windows in an order that only (seed, epoch) decides.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/tokenize/documents.h"

namespace attar {

// Windows [N, T] int64 one after the other, and one token more, so that TrainingWindows of length T
// without a shift are these: what follows the last token of a window is not the text's.
DocumentTokens tokens_of_windows(const at::Tensor& windows);

// Inputs and what follows them.
struct Batch {
  at::Tensor ids;                     // [B, T] int64
  at::Tensor targets;                 // [B, T] int64: the next token; -1 where it does not count
  std::vector<std::int64_t> windows;  // [B], numbers below TrainingWindows::count()

  std::int64_t counted() const;
};

// Windows of `length` tokens and the token after them, end to end. Every epoch sees each once, in
// an order drawn for it; with `shift` an epoch also starts at an offset of its own, so that windows
// are cut elsewhere each time.
class TrainingWindows {
 public:
  // Throws BadInput when the text is shorter than one window.
  TrainingWindows(DocumentTokens tokens, std::int64_t length, std::uint64_t seed, bool shift);

  // The `size` windows of step `step`, whatever was asked before.
  Batch batch(std::int64_t step, std::int64_t size) const;
  // Their numbers alone.
  std::vector<std::int64_t> numbers(std::int64_t step, std::int64_t size) const;

  // Windows [first, first + count) in the order of the text, without a shift: [count, T] int64.
  at::Tensor inputs(std::int64_t first, std::int64_t count) const;

  std::int64_t count() const { return count_; }  // windows an epoch
  std::int64_t length() const { return length_; }
  const DocumentTokens& tokens() const { return tokens_; }

 private:
  const std::vector<std::int64_t>& order_of(std::int64_t epoch) const;

  DocumentTokens tokens_;
  std::int64_t length_;
  std::uint64_t seed_;
  bool shift_;
  std::int64_t count_ = 0;
  mutable std::int64_t epoch_ = -1;  // of order_
  mutable std::vector<std::int64_t> order_;
};

}  // namespace attar
