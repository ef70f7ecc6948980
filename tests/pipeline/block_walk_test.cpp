#include "compress/pipeline/block_walk.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/core/forward.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

const std::vector<std::int64_t> kKept = {2, 3, 11, 40, 41, 77, 100};

at::Tensor index_of_kept() {
  at::Tensor index = at::empty({std::ssize(kKept)}, at::kLong);
  std::copy(kKept.begin(), kKept.end(), index.mutable_data_ptr<std::int64_t>());
  return index;
}

// The rows of `kKept`, times `scale`.
Model trimmed(const Model& base, double scale = 1) {
  Model some = base.successor(std::make_shared<MemoryModelStore>());
  some.keep_tokens(kKept);
  const at::Tensor rows = at::index_select(dense(base.embedding()), 0, index_of_kept());
  some.put_outer({DenseWeight{rows}, base.final_norm(), DenseWeight{rows * scale}});
  return some;
}

at::Tensor ids_below(std::int64_t bound) {
  at::Tensor ids = at::empty({2, 20}, at::kLong);
  for (std::int64_t i = 0; i < ids.numel(); ++i) {
    ids.mutable_data_ptr<std::int64_t>()[i] = i * 13 % bound;
  }
  return ids;
}

// Against itself: only the rounding of keys and values is left, more of it with fewer bits.
TEST(WalkDivergence, MeasuresWhatACodedCacheCosts) {
  const Model base = testing::random_model(testing::Variety::kBiased);
  const at::Tensor ids = ids_below(base.config().vocabulary);
  const auto mean_of = [&](CacheType cache) {
    double sum = 0, count = 0;
    for (const auto& window : walk_divergence(
             base, base, {ids}, [](std::string_view) {}, {}, cache)) {
      for (const float nats : window.nats) sum += static_cast<double>(nats), count += 1;
    }
    return sum / count;
  };
  EXPECT_EQ(mean_of(CacheType::kFloat32), 0);
  const double eight = mean_of(CacheType::kCodes8), four = mean_of(CacheType::kCodes4);
  EXPECT_GT(eight, 0);
  EXPECT_GT(four, 20 * eight);
  EXPECT_LT(four, 0.2);
}

TEST(WalkDivergence, OfATrimmedModelComparesTheKeptTokensAndTellsWhatLayOutside) {
  const Model base = testing::random_model();
  const at::Tensor ids = ids_below(std::ssize(kKept));
  const auto quiet = [](std::string_view) {};
  const auto same = walk_divergence(base, trimmed(base), {ids}, quiet, kKept);
  const auto other = walk_divergence(base, trimmed(base, 1.5), {ids}, quiet, kKept);

  // In double, by hand: what the original says of the kept tokens.
  const at::Tensor teacher_ids =
      at::index_select(index_of_kept(), 0, ids.flatten()).view(ids.sizes());
  BlockWalk walk(base, teacher_ids);
  for (std::int64_t block = 0; block < base.config().layers; ++block) walk.step();
  const at::Tensor hidden = walk.normed(0, ids.numel());
  const at::Tensor logits = at::mm(hidden.to(at::kDouble), dense(base.head()).to(at::kDouble).t());
  const at::Tensor whole = logits.log_softmax(1);
  const at::Tensor kept = at::index_select(logits, 1, index_of_kept());
  const at::Tensor p = kept.log_softmax(1), q = (kept * 1.5).log_softmax(1);
  const at::Tensor kl = (p.exp() * (p - q)).sum(1);
  const at::Tensor outside = 1 - at::index_select(whole, 1, index_of_kept()).exp().sum(1);
  const auto* next = ids.const_data_ptr<std::int64_t>();
  for (std::int64_t window = 0; window < 2; ++window) {
    double lost = 0, likelihood = 0, own = 0;
    for (std::int64_t t = 0; t + 1 < 20; ++t) {
      const std::int64_t row = window * 20 + t;
      const auto& found = other[static_cast<std::size_t>(window)];
      EXPECT_NEAR(same[static_cast<std::size_t>(window)].nats[static_cast<std::size_t>(t)], 0,
                  1e-9);
      EXPECT_NEAR(found.nats[static_cast<std::size_t>(t)], kl[row].item<double>(), 1e-4);
      lost += outside[row].item<double>();
      likelihood += p[row][next[row + 1]].item<double>();
      own += q[row][next[row + 1]].item<double>();
    }
    const auto& found = other[static_cast<std::size_t>(window)];
    EXPECT_NEAR(found.outside, lost, 1e-4);
    EXPECT_NEAR(found.teacher_log_likelihood, likelihood, 1e-3);
    EXPECT_NEAR(found.model_log_likelihood, own, 1e-3);
  }
}

TEST(WalkDivergence, LooksOnlyAtTokensThatCount) {
  const Model base = testing::random_model();
  const at::Tensor ids = ids_below(std::ssize(kKept));
  const auto quiet = [](std::string_view) {};
  at::Tensor counts = at::zeros({2, 20}, at::kByte);
  counts[1][0] = 1;  // nothing stands before it
  counts[1][7] = 1;
  const auto all = walk_divergence(base, trimmed(base, 1.5), {ids}, quiet, kKept);
  const auto some = walk_divergence(base, trimmed(base, 1.5), {ids, counts}, quiet, kKept);
  ASSERT_EQ(some.size(), 1);
  ASSERT_EQ(some[0].nats.size(), 1);
  EXPECT_EQ(some[0].nats[0], all[1].nats[6]);
}

TEST(WalkDivergence, RefusesModelsWithoutAWordOnTheirTokens) {
  const Model base = testing::random_model();
  const at::Tensor ids = ids_below(std::ssize(kKept));
  const auto quiet = [](std::string_view) {};
  EXPECT_THROW(walk_divergence(base, trimmed(base), {ids}, quiet), BadInput);
  const std::vector<std::int64_t> short_list = {2, 3};
  EXPECT_THROW(walk_divergence(base, trimmed(base), {ids}, quiet, short_list), BadInput);
}

}  // namespace
}  // namespace attar
