#include "distill/student_samples.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <span>
#include <vector>

#include "compress/core/random.h"
#include "compress/runtime/transformer.h"
#include "compress/train/learning_pass.h"
#include "compress/train/sparse_targets.h"

namespace attar {

Batch StudentSamples::batch_of(const Batch& text, const Student& student, std::int64_t step) const {
  const at::NoGradGuard none;
  const std::int64_t rows = text.ids.size(0), length = text.ids.size(1);
  const CounterRandom random(seed_, "windows of the student");
  std::vector<std::int64_t> own;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (random.uniform(static_cast<std::uint64_t>(step * rows + row)) < options_.share) {
      own.push_back(row);
    }
  }
  if (own.empty()) return text;

  Model model = model_.successor(std::make_shared<MemoryModelStore>());
  put_trained(student, /*averaged=*/false, model);
  const Transformer transformer(model);
  const std::int64_t wanted = options_.prompt > 0 ? options_.prompt : length / 2;
  const std::int64_t prompt = std::clamp<std::int64_t>(wanted, 1, length - 1);
  Batch batch{text.ids.clone(), text.targets.clone(), text.windows};
  for (const std::int64_t row : own) {
    auto* ids = batch.ids[row].mutable_data_ptr<std::int64_t>();
    auto* targets = batch.targets[row].mutable_data_ptr<std::int64_t>();
    std::fill(targets, targets + length, -1);
    std::vector<TokenId> next(ids, ids + prompt);
    Transformer::State state = transformer.start();
    for (std::int64_t t = prompt; t < length; ++t) {
      const at::Tensor hidden = transformer.extend(state, next);
      const at::Tensor last = hidden.narrow(0, hidden.size(0) - 1, 1);
      const at::Tensor logits = transformer.head().logits(last) / options_.temperature;
      const std::span known(logits.const_data_ptr<float>(), static_cast<std::size_t>(common_));
      const auto number = static_cast<std::uint64_t>((step * rows + row) * length + t);
      ids[t] = targets[t - 1] = drawn_probabilities(known, 1, seed_, number).ids.front();
      next.assign(1, static_cast<TokenId>(ids[t]));
    }
  }
  return batch;
}

}  // namespace attar
