#include <ATen/ops/equal.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/train/sparse_targets.h"
#include "compress/train/teacher_cache.h"
#include "tests/io/temporary_folder.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;

TEST(SparseTargets, TheMostProbableComeFirstAndTiesByTheLowerId) {
  const std::vector<float> logits = {1, 3, 2, 3, 0};
  const SparseRow row = top_probabilities(logits, 3);
  EXPECT_EQ(row.ids, (std::vector<std::int32_t>{1, 3, 2}));
  double sum = 0;
  for (const float x : logits) sum += std::exp(x);
  EXPECT_NEAR(row.probabilities[2], std::exp(2.0) / sum, 1e-6);
  EXPECT_EQ(top_probabilities(logits, 9).ids.size(), 5u);
}

// 2000 rows of 50 draws: an id of probability p is off by sqrt(p (1 - p) / 1e5), five times that is
// one in a million.
TEST(SparseTargets, DrawsAreAnUnbiasedEstimate) {
  std::vector<float> logits;
  for (int i = 0; i < 20; ++i) logits.push_back(static_cast<float>(std::sin(i) * 2));
  std::vector<double> mean(20), p;
  double total = 0;
  for (const float x : logits) total += std::exp(x);
  for (int row = 0; row < 2000; ++row) {
    const SparseRow drawn = drawn_probabilities(logits, 50, 3, static_cast<std::uint64_t>(row));
    for (std::size_t i = 0; i < drawn.ids.size(); ++i) {
      mean[static_cast<std::size_t>(drawn.ids[i])] += drawn.probabilities[i] / 2000.0;
    }
  }
  for (std::size_t i = 0; i < 20; ++i) {
    const double expected = std::exp(logits[i]) / total;
    EXPECT_NEAR(mean[i], expected, 5 * std::sqrt(expected * (1 - expected) / 1e5)) << i;
  }
}

class Cache : public ::testing::Test {
 protected:
  Cache() : windows(text(), 12, 3, false), teacher(testing::random_model(), map, {}, {}) {}
  static DocumentTokens text() {
    DocumentTokens tokens;
    for (int i = 0; i < 12 * 40 + 1; ++i) tokens.ids.push_back((i * i) % 101);
    tokens.counts.assign(tokens.ids.size(), 1);
    tokens.sha256 = "text";
    return tokens;
  }
  CacheReport write(const CacheOptions& options) {
    return write_cache(folder.path() / "cache", options, windows, 20, 2,
                       cache_key(options, windows, "teacher"), teacher, {});
  }
  VocabularyMap map{101, {}};
  io::testing::TemporaryFolder folder;
  TrainingWindows windows;
  LiveTeacher teacher;
};

TEST_F(Cache, GivesTheTeachersProbabilitiesOfABatch) {
  const CacheOptions options{"top_k", 7, 0};
  const CacheReport report = write(options);
  EXPECT_EQ(report.written, 2);
  EXPECT_EQ(report.tokens, 12 * 40);
  CachedTeacher cached(folder.path() / "cache", options, cache_key(options, windows, "teacher"),
                       12);
  for (const std::int64_t step : {0, 13}) {
    const Batch batch = windows.batch(step, 2);
    cached.read(batch);
    teacher.read(batch.ids);
    const at::Tensor p =
        at::softmax(at::mm(teacher.normed().flatten(0, 1), teacher.head().t()), -1);
    const at::Tensor wanted = p.gather(1, cached.ids().to(at::kLong));
    // Half a step of the stored logarithm; what is below exp(-16) is kept as that.
    const at::Tensor off = (cached.probabilities() - wanted).abs() - 1.3e-4 * wanted;
    EXPECT_LE(off.max().item<double>(), 1.2e-7);
    EXPECT_TRUE(at::equal(cached.ids().select(1, 0).to(at::kLong), p.argmax(1)));
  }
}

TEST_F(Cache, DrawsSumToOneAndATokenCostsFewBytes) {
  const CacheOptions options{"sampled", 50, 9};
  const CacheReport report = write(options);
  CachedTeacher cached(folder.path() / "cache", options, cache_key(options, windows, "teacher"),
                       12);
  cached.read(windows.batch(0, 2));
  EXPECT_LE((cached.probabilities().sum(1) - 1).abs().max().item<double>(), 1e-5);
  EXPECT_LE(report.bytes, 1 + report.tokens * (1 + 3 * 50) + 2 * 8192);
}

TEST_F(Cache, IsWrittenOnceGoesOnWhereItWasKilledAndRefusesAnotherKey) {
  const CacheOptions options{"top_k", 7, 0};
  write(options);
  EXPECT_EQ(write(options).written, 0);
  const auto shard = folder.path() / "cache" / "shard-000001.h5";
  const std::string before = io::read_file(shard);
  std::filesystem::resize_file(shard, 700);  // as a killed writer might leave it
  EXPECT_EQ(write(options).written, 1);
  EXPECT_EQ(io::read_file(shard), before);
  EXPECT_THROW(write({"top_k", 8, 0}), BadInput);
}

}  // namespace
}  // namespace attar
