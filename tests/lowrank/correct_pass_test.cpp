#include <ATen/TensorOperators.h>
#include <gmock/gmock.h>

#include "compress/core/grid.h"
#include "tests/lowrank/small_model.h"

namespace attar {
namespace {

using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;

// Plain rounding, as a pass of another family would leave it.
class RoundingPass final : public BlockwisePass {
 public:
  explicit RoundingPass(int bits) : bits_(bits) {}
  std::string_view name() const override { return "test.rounding"; }
  nlohmann::json options() const override { return {}; }
  std::vector<PlannedLayer> plan(const ModelConfig&) const override { return {}; }
  std::int64_t working_bytes(const ModelConfig&) const override { return 0; }
  void run_block(BlockWork& work) const override {
    for (const Role role : kRoles) {
      if (role == Role::kKey) continue;
      const at::Tensor values = dense(work.block[role].weight);
      work.block[role].weight =
          quantize_to_grid(values, choose_grid(values, {bits_, 0, ZeroPoint::kInteger}));
    }
  }

 private:
  int bits_;
};

class CorrectPassOnASmallModel : public testing::SmallModel {
 protected:
  double corrected(int bits, CorrectConfig config) {
    const RoundingPass rounding(bits);
    const CorrectPass correct(config);
    return divergence(through({&rounding, &correct}));
  }
};

CorrectConfig of_rank(std::int64_t rank) {
  CorrectConfig config;
  config.rank = rank;
  return config;
}

TEST_F(CorrectPassOnASmallModel, LowersTheDivergenceAtEveryRank) {
  for (const int bits : {3, 4}) {
    const RoundingPass rounding(bits);
    double before = divergence(through({&rounding}));
    for (const std::int64_t rank : {2, 4, 8, 16, 32}) {
      const double now = corrected(bits, of_rank(rank));
      EXPECT_LT(now, before) << bits << " bits, rank " << rank;
      before = now;
    }
  }
}

// What the activations say beats what the weights alone say: the same rank by plain SVD of what was
// lost would be a correction under white inputs.
TEST_F(CorrectPassOnASmallModel, TheDenseTargetBeatsTheWeightsOwnLoss) {
  CorrectConfig weight = of_rank(8);
  weight.target = "weight";
  EXPECT_LT(corrected(3, of_rank(8)), 0.95 * corrected(3, weight));
}

// Factors of 8 bits correct as well as plain ones, factors of 4 bits still correct.
TEST_F(CorrectPassOnASmallModel, RoundedFactorsStillCorrect) {
  const RoundingPass rounding(3);
  CorrectConfig eight = of_rank(8), four = eight;
  eight.bits = 8;
  four.bits = 4;
  const double plain = corrected(3, of_rank(8)), before = divergence(through({&rounding}));
  EXPECT_LT(corrected(3, eight), plain + 0.05 * (before - plain));
  EXPECT_LT(corrected(3, four), plain + 0.3 * (before - plain));
}

TEST_F(CorrectPassOnASmallModel, FactorsOfCodesCountAsCodes) {
  const RoundingPass rounding(3);
  const auto bytes_with = [&](int bits) {
    CorrectConfig config = of_rank(8);
    config.bits = bits;
    const CorrectPass correct(config);
    const Weight weight = through({&rounding, &correct}).block(1)[Role::kGate].weight;
    const auto& both = std::get<CorrectedWeight>(weight);
    const std::int64_t values = both.correction.a.numel() + both.correction.b.numel();
    return static_cast<double>(stored_bytes(weight) -
                               stored_bytes(Weight(std::get<QuantizedWeight>(both.base)))) /
           static_cast<double>(values);
  };
  EXPECT_EQ(bytes_with(0), 2);  // float16
  EXPECT_GE(bytes_with(8), 1);  // and scales
  EXPECT_LT(bytes_with(8), 1.3);
  EXPECT_LT(bytes_with(4), 0.8);
}

TEST_F(CorrectPassOnASmallModel, KeepsTheCodesAndLeavesUnchangedLayersAlone) {
  const RoundingPass rounding(3);
  const CorrectPass correct(of_rank(8));
  const Block rounded = through({&rounding}).block(1);
  const Block block = through({&rounding, &correct}).block(1);
  const auto& with = std::get<CorrectedWeight>(block[Role::kGate].weight);
  EXPECT_TRUE(std::get<QuantizedWeight>(with.base).codes.equal(
      std::get<QuantizedWeight>(rounded[Role::kGate].weight).codes));
  EXPECT_EQ(with.correction.a.size(0), 8);
  EXPECT_EQ(kind_of(block[Role::kKey].weight), "dense");
  EXPECT_THAT(reports_[1].skipped,
              Contains(Field(&SkippedLayer::reason, HasSubstr("no pass before"))));
  for (const LayerChange& change : reports_[1].changed) {
    EXPECT_LT(change.error, change.baseline_error) << change.layer;
  }
}

// Eckart and Young in the metric of the inputs, on a layer of the model: what the pass reports as
// left over is the tail of the spectrum of what was lost.
TEST_F(CorrectPassOnASmallModel, ReachesTheEckartYoungValue) {
  const Model model = original();
  Block block = model.block(0);
  BlockStream stream(model, calibration_, {});
  const auto statistics = stream.collect(block, {});
  const at::Tensor weight = dense(block[Role::kDown].weight).to(at::kDouble);
  const at::Tensor now =
      dense(
          Weight(quantize_to_grid(weight.to(at::kFloat),
                                  choose_grid(weight.to(at::kFloat), {3, 0, ZeroPoint::kInteger}))))
          .to(at::kDouble);
  const at::Tensor& gram = statistics[index_of(Site::kDownInput)]->gram;
  const OutputPca pca = output_pca(weight - now, gram);
  const double lost = output_energy(weight - now, gram);
  for (const std::int64_t rank : {1, 7, 32}) {
    const Factors factors = truncate(weight - now, pca, rank);
    const double left = output_energy(weight - now - factors.left.mm(factors.right), gram);
    EXPECT_NEAR(left, pca.values.slice(0, rank).sum().item<double>(), 1e-6 * lost) << rank;
  }
}

}  // namespace
}  // namespace attar
