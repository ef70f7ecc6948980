// Windows that the student goes on with by itself, so that it also learns where its own words lead
// it (on-policy distillation: GKD, Agarwal et al. 2024, arXiv:2306.13649).
#pragma once

#include <cstdint>

#include "compress/core/model.h"
#include "compress/train/student.h"
#include "compress/train/training_text.h"

namespace attar {

struct SampleOptions {
  double share = 0;         // of the windows, each drawn by itself
  std::int64_t prompt = 0;  // tokens of the text that stay in front; 0: half of the window
  double temperature = 1;
};

class StudentSamples {
 public:
  // `model` is what the student was made from; tokens are drawn from the first `common` of its
  // vocabulary.
  StudentSamples(const Model& model, SampleOptions options, std::int64_t common, std::uint64_t seed)
      : model_(model), options_(options), common_(common), seed_(seed) {}

  // `text` with some of its windows gone on with by the student as it is. Of those, the drawn
  // tokens alone count. Depends on the student, the step and the text alone. Time: a token after
  // the other, each reading all weights once. Memory: the weights twice more, in float32, while it
  // draws.
  Batch batch_of(const Batch& text, const Student& student, std::int64_t step) const;

 private:
  Model model_;
  SampleOptions options_;
  std::int64_t common_;
  std::uint64_t seed_;
};

}  // namespace attar
