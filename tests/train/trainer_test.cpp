#include "compress/train/trainer.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/train/train_state.h"
#include "tests/io/temporary_folder.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;

TEST(Schedule, WarmsUpAndFallsAsACosineToItsFloor) {
  const Schedule schedule{.peak = 2.0, .floor = 0.1, .warmup = 4, .steps = 105};
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.5);
  EXPECT_DOUBLE_EQ(schedule.at(3), 2.0);
  EXPECT_DOUBLE_EQ(schedule.at(4), 2.0);
  EXPECT_NEAR(schedule.at(54), 1.1, 1e-12);  // half way: (1 + 0.1) / 2 of the peak
  EXPECT_NEAR(schedule.at(104), 0.2, 1e-12);
}

// value 1, gradient 4, clipped to 1: m = 0.1, v = 0.05; corrected 1 and 1; step of 0.1; decay 0.01.
TEST(AdamW, MatchesAHandWorkedStep) {
  std::vector<Parameter> parameters(1);
  parameters[0].value = at::full({1}, 1.0f);
  prepare(parameters, {});
  parameters[0].gradient.fill_(4);
  EXPECT_DOUBLE_EQ(adamw_step(parameters, {.weight_decay = 0.1}, 0.1, 0), 4.0);
  EXPECT_NEAR(parameters[0].value.item<double>(), 1 - 0.01 - 0.1, 1e-6);
  EXPECT_EQ(parameters[0].gradient.item<double>(), 0);
}

// Against the formulas of the paper in double, for a while.
TEST(AdamW, FollowsTheFormulasOverManySteps) {
  const AdamWConfig config{.weight_decay = 0.05, .clip = 0.5, .average = 0.9};
  std::vector<Parameter> parameters(2);
  parameters[0].value = normal({300}, "a").clone();
  parameters[1].value = normal({7}, "b").clone();
  parameters[1].decays = false;
  prepare(parameters, config);
  std::vector<double> value, first, second, average;
  for (const Parameter& p : parameters) {
    for (std::int64_t i = 0; i < p.value.numel(); ++i) value.push_back(p.value[i].item<double>());
  }
  first.resize(value.size()), second.resize(value.size()), average = value;
  for (int step = 0; step < 20; ++step) {
    const at::Tensor g = normal({307}, "g" + std::to_string(step));
    parameters[0].gradient.copy_(g.narrow(0, 0, 300));
    parameters[1].gradient.copy_(g.narrow(0, 300, 7));
    const double norm = g.to(at::kDouble).norm().item<double>();
    EXPECT_NEAR(adamw_step(parameters, config, 0.01, step), norm, 1e-6 * norm);
    for (std::size_t i = 0; i < value.size(); ++i) {
      const double gradient = g[static_cast<std::int64_t>(i)].item<double>() * 0.5 / norm;
      first[i] = 0.9 * first[i] + 0.1 * gradient;
      second[i] = 0.95 * second[i] + 0.05 * gradient * gradient;
      const double m = first[i] / (1 - std::pow(0.9, step + 1));
      const double v = second[i] / (1 - std::pow(0.95, step + 1));
      if (i < 300) value[i] -= 0.01 * 0.05 * value[i];
      value[i] -= 0.01 * m / (std::sqrt(v) + 1e-8);
      average[i] = 0.9 * average[i] + 0.1 * value[i];
    }
  }
  for (std::size_t i = 0; i < value.size(); ++i) {
    const Parameter& p = parameters[i < 300 ? 0 : 1];
    const auto at = static_cast<std::int64_t>(i < 300 ? i : i - 300);
    EXPECT_NEAR(p.value[at].item<double>(), value[i], 2e-5);
    EXPECT_NEAR(p.average[at].item<double>(), average[i], 2e-5);
  }
}

TEST(AdamW, LeavesEverythingAsItIsWhenAGradientIsNotFinite) {
  std::vector<Parameter> parameters(1);
  parameters[0].value = at::full({3}, 1.0f);
  prepare(parameters, {});
  parameters[0].gradient = at::tensor({1.0f, std::nanf(""), 2.0f});
  EXPECT_FALSE(std::isfinite(adamw_step(parameters, {}, 0.1, 0)));
  EXPECT_TRUE(at::equal(parameters[0].value, at::full({3}, 1.0f)));
  EXPECT_EQ(parameters[0].first.abs().sum().item<double>(), 0);
}

// A text of 2000 tokens in which each follows from the one before.
DocumentTokens counting_text(std::int64_t vocabulary) {
  DocumentTokens tokens;
  for (int i = 0; i < 2000; ++i) {
    tokens.ids.push_back(static_cast<TokenId>((i * 7 + i / 101) % vocabulary));
  }
  tokens.counts.assign(tokens.ids.size(), 1);
  tokens.sha256 = "counting";
  return tokens;
}

class Training : public ::testing::Test {
 protected:
  Training() : windows(counting_text(101), 40, 5, true) {
    config.steps = 12;
    config.batch = 30;
    config.length = 40;
    config.learning_rate = 3e-3;
    config.average = 0.8;
    config.save_seconds = 1000;
  }
  TrainOutcome run(Student& student, const std::string& name, const RunContext& context = {}) {
    NextToken objective(false);
    return train(student, objective, windows, config, "model", folder.path() / name, context);
  }
  static void expect_same(Student& a, Student& b) {
    for (std::size_t i = 0; i < a.parameters().size(); ++i) {
      const Parameter &x = a.parameters()[i], &y = b.parameters()[i];
      EXPECT_TRUE(at::equal(x.value, y.value) && at::equal(x.second, y.second)) << x.name;
      EXPECT_TRUE(at::equal(x.average, y.average)) << x.name;
    }
  }
  io::testing::TemporaryFolder folder;
  TrainConfig config;
  TrainingWindows windows;
};

TEST_F(Training, LowersTheLoss) {
  Student student(random_model(), {});
  const TrainOutcome outcome = run(student, "a");
  ASSERT_EQ(outcome.history.size(), 12u);
  EXPECT_LT(outcome.history.back().means[0].sum, outcome.history.front().means[0].sum - 1);
  EXPECT_EQ(outcome.tokens, 12 * 30 * 40);
}

TEST_F(Training, StoppedAnywhereItEndsInTheSameBits) {
  Student whole(random_model(), {});
  run(whole, "whole");
  for (const int stop_after : {1, 5}) {
    const std::string name = "stopped" + std::to_string(stop_after);
    std::atomic<bool> stop = false;
    RunContext context;
    context.stop = &stop;
    int steps = 0;
    context.progress = [&](std::string_view) { stop = ++steps == stop_after; };
    Student first(random_model(), {});
    EXPECT_THROW(run(first, name, context), Stopped);
    Student second(random_model(), {});
    set_threads(1);
    const TrainOutcome outcome = run(second, name);
    set_threads(2);
    EXPECT_EQ(outcome.resumed_at, stop_after);
    expect_same(second, whole);
    Student third(random_model(), {});
    EXPECT_EQ(run(third, name).resumed_at, 12) << "a finished run is only read";
    expect_same(third, whole);
  }
}

// One step has no finite gradient; an interruption behind it changes nothing.
TEST_F(Training, GoesOnBehindAStepThatWasSkipped) {
  class Breaks final : public Objective {
   public:
    void begin_step(const Batch&, std::int64_t step, std::int64_t) override { step_ = step; }
    std::vector<ObjectiveTerm> add_gradient(Student& student, const Batch& micro,
                                            double scale) override {
      auto terms = whole_.add_gradient(student, micro, step_ == 2 ? std::nan("") : scale);
      if (step_ == 2) terms.front().sum = INFINITY;
      return terms;
    }

   private:
    NextToken whole_{false};
    std::int64_t step_ = 0;
  };
  const auto run_broken = [&](Student& student, const std::string& name,
                              const RunContext& context) {
    Breaks objective;
    return train(student, objective, windows, config, "model", folder.path() / name, context);
  };
  Student whole(random_model(), {});
  const TrainOutcome straight = run_broken(whole, "whole", {});
  EXPECT_EQ(straight.skipped, 1);
  std::atomic<bool> stop = false;
  RunContext context;
  context.stop = &stop;
  int steps = 0;
  context.progress = [&](std::string_view) { stop = ++steps == 5; };
  Student first(random_model(), {}), second(random_model(), {});
  EXPECT_THROW(run_broken(first, "stopped", context), Stopped);
  const TrainOutcome outcome = run_broken(second, "stopped", {});
  EXPECT_EQ(outcome.resumed_at, 5);
  EXPECT_TRUE(std::isinf(outcome.history.at(2).means.front().sum));
  EXPECT_TRUE(std::isnan(outcome.history.at(2).gradient_norm));
  expect_same(second, whole);
}

TEST_F(Training, AStateOfAnotherRunOrADamagedOneIsNotUsed) {
  Student student(random_model(), {});
  run(student, "a");
  config.learning_rate = 1e-3;
  Student other(random_model(), {});
  EXPECT_THAT(run(other, "a").note, ::testing::HasSubstr("another run"));
  std::filesystem::resize_file(folder.path() / "a" / "train.safetensors", 5000);
  Student again(random_model(), {});
  EXPECT_THAT(run(again, "a").note, ::testing::HasSubstr("damaged"));
  expect_same(again, other);
}

}  // namespace
}  // namespace attar
