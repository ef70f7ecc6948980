#include "distill/distillation.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "distill/distill_pass.h"
#include "tests/io/temporary_folder.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;
using testing::small_config;

// The teacher with its MLPs disturbed: a student that has something to learn.
Model disturbed(double size = 3) {
  Model model = random_model();
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    Block block = model.block(i);
    const at::Tensor down = dense(block[Role::kDown].weight);
    block[Role::kDown].weight = DenseWeight{
        down + size * down.std() * normal(down.sizes().vec(), "noise" + std::to_string(i))};
    model.put_block(i, block);
  }
  return model;
}

DocumentTokens random_text() {
  DocumentTokens tokens;
  for (std::uint64_t i = 0; i < 3000; ++i) {
    tokens.ids.push_back(static_cast<TokenId>(CounterRandom(1, "text").below(i, 101)));
  }
  tokens.counts.assign(tokens.ids.size(), 1);
  tokens.sha256 = "random";
  return tokens;
}

class Distilling : public ::testing::TestWithParam<const char*> {
 protected:
  Distilling() : windows(random_text(), 24, 5, false) {
    config.steps = 30;
    config.batch = 12;
    config.length = 24;
    config.learning_rate = 1e-3;
    config.weight_decay = 0;
    config.save_seconds = 1000;
  }
  static LossPlan plan_of(const std::string& text) {
    return read_losses(nlohmann::json::parse(text), "loss");
  }
  std::unique_ptr<Distillation> objective(Student& student, const std::string& losses) {
    LossPlan plan = plan_of(losses);
    std::vector<std::int64_t> boundaries, blocks;
    for (const HiddenPart& part : plan.hidden) {
      for (const auto boundary : boundaries_of(part, 3)) boundaries.push_back(boundary);
    }
    for (const RelationPart& part : plan.relations) {
      blocks.push_back(RelationLoss::teacher_block_of(part, testing::small_config()));
    }
    Teachers teachers;
    teachers.live =
        std::make_unique<LiveTeacher>(random_model(), VocabularyMap{101, {}}, boundaries, blocks);
    return std::make_unique<Distillation>(std::move(plan), std::move(teachers), student,
                                          windows.batch(0, config.batch), false);
  }
  // Mean forward KL to the teacher over a batch that is never trained on.
  double divergence(Student& student) {
    auto measure = objective(student, "\"forward_kl\"");
    const Batch batch = windows.batch(1000, 12);
    prepare(student.parameters(), {});
    measure->begin_step(batch, 0, 1);
    const double kl =
        measure->add_gradient(student, batch, 1).front().sum / static_cast<double>(batch.counted());
    for (Parameter& p : student.parameters()) p.gradient.zero_();
    return kl;
  }
  io::testing::TemporaryFolder folder;
  TrainConfig config;
  TrainingWindows windows;
};

TEST_P(Distilling, LowersTheStudentsDivergence) {
  Student student(disturbed(), {});
  const double before = divergence(student);
  auto loss = objective(student, GetParam());
  train(student, *loss, windows, config, "", folder.path(), {});
  const double after = divergence(student);
  EXPECT_LT(after, (std::string(GetParam()) == "\"forward_kl\"" ? 0.5 : 0.9) * before);
}

INSTANTIATE_TEST_SUITE_P(
    Losses, Distilling,
    ::testing::Values("\"forward_kl\"", "\"reverse_kl\"", "\"jensen_shannon\"", "\"skew_forward\"",
                      "\"skew_reverse\"", "\"taid\"", "\"total_variation\"",
                      R"({"forward_kl": {"temperature": 2}})", R"({"hidden": {}})",
                      R"({"hidden": {"projection": "learned"}})",
                      R"([{"hidden": {"projection": "learned"}},
                          {"hidden": {"projection": "learned", "weight": 0.1}}])",
                      R"([{"relation": {"student_block": 2, "teacher_block": 2}}, "forward_kl"])"));

class DistillationOf : public Distilling {};

// The derivative along a random direction, of everything at once: losses on logits, states and
// relations reach every weight that they should.
TEST_F(DistillationOf, GradientsEqualFiniteDifferences) {
  const std::string losses =
      R"({"forward_kl": {"temperature": 2}, "hidden": {"weight": 0.5, "projection": "learned"},
          "relation": {"weight": 0.3, "student_block": 1}})";
  const Batch batch = windows.batch(3, 4);
  Student student(disturbed(), {});
  auto loss = objective(student, losses);
  prepare(student.parameters(), {});
  loss->begin_step(batch, 0, 1);
  loss->add_gradient(student, batch, 1);
  std::vector<at::Tensor> gradients;
  for (const Parameter& p : student.parameters()) gradients.push_back(p.gradient.clone());
  for (std::size_t i = 0; i < gradients.size(); i += 5) {
    const Parameter& p = student.parameters()[i];
    const at::Tensor value = p.value.detach(), start = value.clone();
    const at::Tensor direction = gradients[i] / gradients[i].norm();
    const double step = 2e-3 * start.norm().item<double>();
    const auto loss_at = [&](double move) {
      value.copy_(start + move * direction);
      loss->begin_step(batch, 0, 1);
      return loss->add_gradient(student, batch, 1).front().sum;
    };
    const double slope = gradients[i].norm().item<double>();
    const double difference = (loss_at(step) - loss_at(-step)) / (2 * step);
    value.copy_(start);
    EXPECT_NEAR(slope, difference, 0.02 * slope) << p.name;
  }
}

TEST_F(DistillationOf, ThreadsAndMicroBatchesOfOneChangeNoBit) {
  const auto run = [&](int threads) {
    set_threads(threads);
    Student student(disturbed(), {});
    auto loss = objective(student, R"(["taid", "hidden", "relation"])");
    config.steps = 3;
    train(student, *loss, windows, config, "", folder.path() / std::to_string(threads), {});
    std::vector<at::Tensor> values;
    for (const Parameter& p : student.parameters()) values.push_back(p.value.detach());
    return values;
  };
  const auto one = run(1), two = run(2);
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], two[i])) << i;
}

TEST_F(DistillationOf, GoesOnWithTaidsScheduleWhereItStopped) {
  config.steps = 8;
  Student whole(disturbed(), {});
  train(whole, *objective(whole, "\"taid\""), windows, config, "", folder.path() / "whole", {});
  std::atomic<bool> stop = false;
  RunContext context;
  context.stop = &stop;
  int steps = 0;
  context.progress = [&](std::string_view) { stop = ++steps == 3; };
  Student first(disturbed(), {}), second(disturbed(), {});
  auto begun = objective(first, "\"taid\"");
  EXPECT_THROW(train(first, *begun, windows, config, "", folder.path() / "two", context), Stopped);
  auto resumed = objective(second, "\"taid\"");
  train(second, *resumed, windows, config, "", folder.path() / "two", {});
  for (std::size_t i = 0; i < whole.parameters().size(); ++i) {
    EXPECT_TRUE(at::equal(whole.parameters()[i].value, second.parameters()[i].value)) << i;
  }
}

TEST(DistillPass, RefusesALossThatACacheCannotServe) {
  const auto refusal = [](nlohmann::json options) -> std::string {
    try {
      DistillPass pass(read_fields<DistillConfig>(options, "distill"));
    } catch (const UsageError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal({{"text", "a"}, {"cache", "c"}, {"loss", "forward_kl"}}), "accepted");
  EXPECT_THAT(refusal({{"text", "a"}, {"cache", "c"}, {"loss", "reverse_kl"}}),
              ::testing::HasSubstr("leave cache out"));
  EXPECT_THAT(refusal({{"text", "a"}, {"cache", "c"}, {"loss", "hidden"}}),
              ::testing::HasSubstr("leave cache out"));
  EXPECT_THAT(refusal({{"loss", "forward_kl"}}), ::testing::HasSubstr("text is missing"));
  EXPECT_THAT(refusal({{"text", "a"}, {"learn", "wieghts"}}), ::testing::HasSubstr("known:"));
}

// A teacher whose tokens have other numbers, and more of them.
class Spelled final : public Tokenizer {
 public:
  explicit Spelled(std::vector<std::string> tokens) : tokens_(std::move(tokens)) {}
  std::vector<TokenId> encode(std::string_view, bool) const override { return {}; }
  std::string decode(std::span<const TokenId>, bool) const override { return {}; }
  std::int64_t vocabulary_size() const override { return std::ssize(tokens_); }
  std::optional<TokenId> bos() const override { return {}; }
  std::optional<TokenId> eos() const override { return {}; }
  std::optional<TokenId> unknown() const override { return {}; }
  std::optional<TokenId> padding() const override { return {}; }
  bool adds_bos() const override { return false; }
  std::optional<TokenId> id_of(std::string_view token) const override {
    const auto at = std::find(tokens_.begin(), tokens_.end(), token);
    if (at == tokens_.end()) return {};
    return static_cast<TokenId>(at - tokens_.begin());
  }
  std::string_view token(TokenId id) const override {
    return tokens_[static_cast<std::size_t>(id)];
  }
  bool is_special(TokenId) const override { return false; }
  std::optional<std::string> chat_template() const override { return {}; }

 private:
  std::vector<std::string> tokens_;
};

TEST(Vocabulary, IsMatchedBySpellingAndPaddingIsLeftOut) {
  const Spelled student({"a", "c", "b"}), teacher({"a", "b", "x", "c"});
  const VocabularyMap map = match_tokens(student, 8, teacher, 4);
  EXPECT_EQ(map.common, 3);
  EXPECT_EQ(map.teacher_ids[1].item<std::int64_t>(), 3);
  EXPECT_FALSE(match_tokens(student, 3, student, 3).teacher_ids.defined());
  EXPECT_THROW(match_tokens(teacher, 4, student, 3), BadInput);
  EXPECT_EQ(same_tokenizer(151936, 151665).common, 151665);
}

}  // namespace
}  // namespace attar
