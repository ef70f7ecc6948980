#include "compress/train/training_text.h"

#include <ATen/ops/empty.h>

#include <numeric>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "compress/io/hash.h"

namespace attar {

DocumentTokens tokens_of_windows(const at::Tensor& windows) {
  const at::Tensor flat = windows.to(at::kLong).contiguous();
  const auto* ids = flat.const_data_ptr<std::int64_t>();
  DocumentTokens tokens;
  for (std::int64_t i = 0; i < flat.numel(); ++i) {
    tokens.ids.push_back(static_cast<TokenId>(ids[i]));
  }
  tokens.ids.push_back(tokens.ids.front());
  tokens.counts.assign(tokens.ids.size(), 1);
  tokens.documents = windows.size(0);
  io::Sha256 hash;
  hash.update(std::as_bytes(std::span(tokens.ids)));
  tokens.sha256 = hash.hex();
  return tokens;
}

std::int64_t Batch::counted() const { return targets.ge(0).sum().item<std::int64_t>(); }

TrainingWindows::TrainingWindows(DocumentTokens tokens, std::int64_t length, std::uint64_t seed,
                                 bool shift)
    : tokens_(std::move(tokens)), length_(length), seed_(seed), shift_(shift) {
  const auto available = static_cast<std::int64_t>(tokens_.ids.size());
  const std::int64_t whole = (available - 1) / length;
  require(whole >= 1, "text", "holds ", available, " tokens, less than one window of ", length,
          " and the token after it; give more text or a smaller length");
  shift_ = shift && whole >= 2;
  count_ = shift_ ? whole - 1 : whole;  // an epoch that starts later has one less
}

// Fisher and Yates; one epoch is kept.
const std::vector<std::int64_t>& TrainingWindows::order_of(std::int64_t epoch) const {
  if (epoch == epoch_) return order_;
  order_.resize(static_cast<std::size_t>(count_));
  std::iota(order_.begin(), order_.end(), 0);
  const CounterRandom random(seed_, "train.order", static_cast<std::uint64_t>(epoch));
  for (std::size_t i = 0; i + 1 < order_.size(); ++i) {
    std::swap(order_[i], order_[i + random.below(i, order_.size() - i)]);
  }
  epoch_ = epoch;
  return order_;
}

std::vector<std::int64_t> TrainingWindows::numbers(std::int64_t step, std::int64_t size) const {
  std::vector<std::int64_t> numbers;
  for (std::int64_t place = step * size; place < (step + 1) * size; ++place) {
    numbers.push_back(order_of(place / count_)[static_cast<std::size_t>(place % count_)]);
  }
  return numbers;
}

at::Tensor TrainingWindows::inputs(std::int64_t first, std::int64_t count) const {
  at::Tensor ids = at::empty({count, length_}, at::kLong);
  auto* out = ids.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < count * length_; ++i) {
    out[i] = tokens_.ids[static_cast<std::size_t>(first * length_ + i)];
  }
  return ids;
}

Batch TrainingWindows::batch(std::int64_t step, std::int64_t size) const {
  Batch batch;
  batch.ids = at::empty({size, length_}, at::kLong);
  batch.targets = at::empty({size, length_}, at::kLong);
  auto* ids = batch.ids.mutable_data_ptr<std::int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<std::int64_t>();
  batch.windows = numbers(step, size);
  for (std::int64_t row = 0; row < size; ++row) {
    const std::int64_t epoch = (step * size + row) / count_;
    std::int64_t first = batch.windows[static_cast<std::size_t>(row)] * length_;
    if (shift_) {
      first += static_cast<std::int64_t>(
          CounterRandom(seed_, "train.offset")
              .below(static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(length_)));
    }
    for (std::int64_t t = 0; t < length_; ++t) {
      const auto at = static_cast<std::size_t>(first + t);
      *ids++ = tokens_.ids[at];
      *targets++ = tokens_.counts[at + 1] != 0 ? tokens_.ids[at + 1] : -1;
    }
  }
  return batch;
}

}  // namespace attar
