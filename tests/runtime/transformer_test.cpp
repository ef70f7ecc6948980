#include "compress/runtime/transformer.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <limits>

#include "compress/core/errors.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::random_model;

std::vector<TokenId> tokens(std::int64_t count, TokenId first) {
  std::vector<TokenId> ids(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<TokenId>((first + 37 * static_cast<TokenId>(i)) % 101);
  }
  return ids;
}

// log softmax of the logits after `prefix`, in double, from a fresh model.
std::vector<double> log_probabilities(const std::vector<TokenId>& prefix) {
  const Transformer model(random_model());
  Transformer::State state = model.start();
  const at::Tensor hidden = model.extend(state, prefix);
  const at::Tensor row =
      model.head().logits(hidden.narrow(0, hidden.size(0) - 1, 1)).to(at::kDouble).log_softmax(1);
  const auto* data = row.const_data_ptr<double>();
  return {data, data + row.numel()};
}

TEST(LanguageModel, ScoresAreSumsOfTokenLogProbabilities) {
  const auto model = make_language_model(random_model(), nullptr);
  const std::vector<TokenId> prefix = tokens(9, 3);
  const std::vector<std::vector<TokenId>> continuations = {{5, 17, 80}, {44}};
  const auto scores = model->score(prefix, continuations);
  double expected = 0;
  std::vector<TokenId> so_far = prefix;
  for (const TokenId token : continuations[0]) {
    expected += log_probabilities(so_far)[static_cast<std::size_t>(token)];
    so_far.push_back(token);
  }
  EXPECT_NEAR(scores[0].log_likelihood, expected, 1e-5);
  EXPECT_NEAR(scores[1].log_likelihood, log_probabilities(prefix)[44], 1e-5);
}

// What was asked before, and what stands beside, changes no bit.
TEST(LanguageModel, AnswersDoNotDependOnHistoryOrCompany) {
  const auto busy = make_language_model(random_model(), nullptr);
  std::vector<TokenId> prefix = tokens(40, 3);
  busy->score(tokens(25, 3), std::vector<std::vector<TokenId>>{{1, 2}, {3}});
  busy->score(tokens(60, 3), std::vector<std::vector<TokenId>>{{9}});
  const std::vector<std::vector<TokenId>> together = {{5, 17, 80}, {44}, {7, 7, 7, 7, 7, 7}};
  const auto scores = busy->score(prefix, together);
  for (std::size_t i = 0; i < together.size(); ++i) {
    const auto fresh = make_language_model(random_model(), nullptr);
    const auto alone = fresh->score(prefix, std::span(together).subspan(i, 1));
    EXPECT_EQ(alone[0].token_log_probabilities, scores[i].token_log_probabilities) << i;
    EXPECT_EQ(alone[0].log_likelihood, scores[i].log_likelihood) << i;
  }
}

TEST(LanguageModel, GreedyFollowsTheLargestLogitAndStops) {
  const auto model = make_language_model(random_model(), nullptr);
  const std::vector<TokenId> prompt = tokens(6, 11);
  const Generation all = model->generate_greedy(prompt, 5, {}, nullptr);
  ASSERT_EQ(all.ids.size(), 5u);
  std::vector<TokenId> so_far = prompt;
  for (const TokenId token : all.ids) {
    const auto p = log_probabilities(so_far);
    EXPECT_EQ(token, std::max_element(p.begin(), p.end()) - p.begin());
    so_far.push_back(token);
  }
  const std::array<TokenId, 1> stop = {all.ids[2]};
  const Generation stopped = model->generate_greedy(prompt, 5, stop, nullptr);
  EXPECT_EQ(stopped.ids.back(), all.ids[2]);
  EXPECT_LE(stopped.ids.size(), 3u);
  const Generation asked = model->generate_greedy(
      prompt, 5, {}, [](std::span<const TokenId> ids) { return ids.size() == 2; });
  EXPECT_EQ(asked.ids.size(), 2u);
}

TEST(LanguageModel, RefusesWhatDoesNotFit) {
  const auto model = make_language_model(random_model(), nullptr);
  EXPECT_THROW(model->score({}, std::vector<std::vector<TokenId>>{{1}}), UsageError);
  EXPECT_THROW(model->score(tokens(256, 0), std::vector<std::vector<TokenId>>{{1, 2}}), UsageError);
  EXPECT_THROW(model->score(tokens(3, 0), std::vector<std::vector<TokenId>>{{}}), UsageError);
  const std::vector<TokenId> foreign = {101};
  EXPECT_THROW(model->score(foreign, std::vector<std::vector<TokenId>>{{1}}), BadInput);
}

class DamagedSource final : public testing::RandomSource {
 public:
  at::Tensor read_final_norm() const override {
    return testing::RandomSource::read_final_norm() * std::numeric_limits<float>::quiet_NaN();
  }
};

TEST(LanguageModel, ANonFiniteLogitIsAnErrorNeverAnAnswer) {
  const Model damaged(std::make_shared<DamagedSource>());
  const auto model = make_language_model(damaged, nullptr);
  EXPECT_THROW(model->score(tokens(5, 1), std::vector<std::vector<TokenId>>{{1}}), NumericRefusal);
  EXPECT_THROW(model->generate_greedy(tokens(5, 1), 3, {}, nullptr), NumericRefusal);
}

}  // namespace
}  // namespace attar
