#include "distill/student_samples.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "distill/distill_pass.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::random_model;

class StudentSamplesTest : public ::testing::Test {
 protected:
  StudentSamplesTest() : model_(random_model()), student_(model_, {}) {
    text_.ids = (at::full({kRows, kLength}, 5, at::kLong) + at::arange(kLength, at::kLong));
    text_.targets = text_.ids + 1;
    text_.windows.assign(kRows, 0);
  }
  Batch drawn(const SampleOptions& options, std::int64_t step = 3) const {
    return StudentSamples(model_, options, 101, 11).batch_of(text_, student_, step);
  }

  static constexpr std::int64_t kRows = 40, kLength = 12;
  Model model_;
  Student student_;
  Batch text_;
};

TEST_F(StudentSamplesTest, TheShareOfWindowsKeepsItsPromptAndCountsItsOwnTokensAlone) {
  const Batch batch = drawn({.share = 0.4, .prompt = 5});
  std::int64_t own = 0;
  for (std::int64_t row = 0; row < kRows; ++row) {
    EXPECT_TRUE(at::equal(batch.ids[row].narrow(0, 0, 5), text_.ids[row].narrow(0, 0, 5)));
    if (at::equal(batch.targets[row], text_.targets[row])) {
      EXPECT_TRUE(at::equal(batch.ids[row], text_.ids[row]));
      continue;
    }
    ++own;
    EXPECT_TRUE(batch.targets[row].narrow(0, 0, 4).eq(-1).all().item<bool>());
    EXPECT_EQ(batch.targets[row][kLength - 1].item<std::int64_t>(), -1);
    EXPECT_TRUE(at::equal(batch.targets[row].narrow(0, 4, 7), batch.ids[row].narrow(0, 5, 7)));
  }
  EXPECT_GT(own, 8);
  EXPECT_LT(own, 24);
  EXPECT_TRUE(at::equal(drawn({.share = 0}).ids, text_.ids));
}

// At a temperature near 0 the likeliest token of a forward pass over all that stands before.
TEST_F(StudentSamplesTest, TokensAreDrawnFromWhatTheStudentIsNow) {
  {
    const at::NoGradGuard none;
    for (Parameter& p : student_.parameters()) {
      if (p.name.find("down") != std::string::npos) p.value.mul_(3);
    }
  }
  const Batch batch = drawn({.share = 1, .temperature = 0.01});
  const at::NoGradGuard none;
  const at::Tensor logits =
      at::matmul(student_.forward(batch.ids, true).normed, student_.head().t());
  const std::int64_t first = kLength / 2;
  EXPECT_TRUE(at::equal(logits.narrow(1, first - 1, kLength - first).argmax(-1),
                        batch.ids.narrow(1, first, kLength - first)));
}

TEST_F(StudentSamplesTest, DependOnStepAndNotOnThreadsOrEarlierSteps) {
  const SampleOptions options{.share = 1, .temperature = 20};
  set_threads(1);
  const at::Tensor one = drawn(options).ids, other = drawn(options, 4).ids;
  set_threads(2);
  EXPECT_TRUE(at::equal(drawn(options).ids, one));
  EXPECT_FALSE(at::equal(other, one));
  EXPECT_FALSE(at::equal(one[0], one[1]));  // the same prompt, other numbers
}

TEST(OnPolicy, RefusesWhatItCannotLearnFrom) {
  DistillConfig config;
  config.text = {"text"};
  config.on_policy = 0.5;
  EXPECT_NO_THROW(DistillPass{config});
  config.loss = "cross_entropy";
  EXPECT_THROW(DistillPass{config}, UsageError);
  config.loss = "relation";
  EXPECT_THROW(DistillPass{config}, UsageError);
  config.loss = "forward_kl";
  config.prompt = config.length;
  EXPECT_THROW(DistillPass{config}, UsageError);
  config.prompt = 8;
  EXPECT_NO_THROW(DistillPass{config});
  config.on_policy = 0;
  EXPECT_THROW(DistillPass{config}, UsageError);
  config.on_policy = 0.5;
  config.cache = "cache";
  EXPECT_THROW(DistillPass{config}, UsageError);
}

}  // namespace
}  // namespace attar
