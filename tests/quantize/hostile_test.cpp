// Generated weights and Hessians of every unhappy kind: what comes out is finite and not worse than
// plain rounding under the same Hessian, or it is the right refusal.
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/core/random.h"
#include "quantize/awq.h"
#include "quantize/gptq.h"
#include "quantize/rtn.h"
#include "quantize/scheme_rules.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

// A number after the other, from one key.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : random_(seed, "hostile") {}
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(random_.below(next_++, static_cast<std::uint64_t>(bound)));
  }
  double normal() { return random_.normal(next_++); }
  double power(double low, double high) {  // of ten
    return std::pow(10.0, low + (high - low) * random_.uniform(next_++));
  }
  bool one_in(std::int64_t count) { return below(count) == 0; }

 private:
  CounterRandom random_;
  std::uint64_t next_ = 0;
};

struct Case {
  at::Tensor weight;   // [O, I] float32
  at::Tensor hessian;  // [I, I] double
  QuantScheme scheme;
  GptqOptions options;
  std::string kind;
  bool spoilt = false;       // a NaN or an infinity stands somewhere
  bool semidefinite = true;  // H is a sum of x x^T
};

at::Tensor noise(Dice& dice, std::int64_t rows, std::int64_t columns) {
  at::Tensor values = at::zeros({rows, columns}, at::kDouble);
  for (std::int64_t i = 0; i < values.numel(); ++i) values.data_ptr<double>()[i] = dice.normal();
  return values;
}

// Inputs [tokens, I] as a bad layer or a bad text would give them.
at::Tensor inputs(Dice& dice, std::int64_t columns, std::string& kind) {
  const char* kinds[] = {"plain", "one sample", "none", "twins", "quiet", "loud", "spread", "dead"};
  const std::int64_t chosen = dice.below(8);
  kind += kinds[chosen];
  at::Tensor x = noise(dice, chosen == 1 ? 1 : 1 + dice.below(3 * columns), columns);
  if (chosen == 2) x.zero_();
  if (chosen == 3) {
    for (std::int64_t j = 1; j < columns; j += 2) x.select(1, j).copy_(x.select(1, j - 1));
  }
  if (chosen == 4) x.mul_(dice.power(-19, -6));  // H down to 1e-38
  if (chosen == 5) x.mul_(dice.power(6, 19));
  for (std::int64_t j = 0; j < columns && chosen == 6; ++j)
    x.select(1, j).mul_(dice.power(-19, 19));
  for (std::int64_t j = 0; j < columns && chosen == 7; ++j) {
    if (dice.one_in(3)) x.select(1, j).zero_();
  }
  return x;
}

at::Tensor weights(Dice& dice, std::int64_t rows, std::int64_t columns, std::string& kind) {
  const char* kinds[] = {"normal", "zero", "equal", "spiked", "tiny", "huge", "spread", "rank one"};
  const std::int64_t chosen = dice.below(8);
  kind += std::string(" inputs, weights ") + kinds[chosen];
  at::Tensor w = noise(dice, rows, columns);
  if (chosen == 1) w.zero_();
  if (chosen == 2) w.fill_(dice.normal());
  if (chosen == 3) w.select(0, dice.below(rows)).select(0, dice.below(columns)).fill_(1e4);
  if (chosen == 4) w.mul_(dice.power(-38, -6));
  if (chosen == 5) w.mul_(dice.power(4, 37));
  if (chosen == 6) {
    for (std::int64_t i = 0; i < w.numel(); ++i) w.data_ptr<double>()[i] *= dice.power(-38, 37);
  }
  if (chosen == 7) w = noise(dice, rows, 1).mm(noise(dice, 1, columns));
  return w.to(at::kFloat);
}

void spoil(Dice& dice, at::Tensor values) {
  const double bad[] = {std::nan(""), std::numeric_limits<double>::infinity(),
                        -std::numeric_limits<double>::infinity()};
  values.select(0, dice.below(values.size(0)))
      .select(0, dice.below(values.size(1)))
      .fill_(bad[dice.below(3)]);
}

Case generated(std::uint64_t seed) {
  Dice dice(seed);
  Case made;
  const std::int64_t rows = 1 + dice.below(6), columns = 8 * (1 + dice.below(4));
  const at::Tensor x = inputs(dice, columns, made.kind);
  made.hessian = x.t().mm(x);
  made.weight = weights(dice, rows, columns, made.kind);
  if (dice.one_in(12)) {  // an H that no inputs have
    made.semidefinite = false;
    made.hessian.sub_(at::eye(columns, at::kDouble) * made.hessian.diagonal().mean() *
                      dice.power(-3, 1));
    made.kind += ", indefinite";
  }
  if (dice.one_in(10)) {
    made.spoilt = true;
    spoil(dice, dice.one_in(2) ? made.weight : made.hessian);
    made.kind += ", spoilt";
  }
  const ZeroPoint zeros[] = {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum};
  const at::ScalarType types[] = {at::kHalf, at::kBFloat16, at::kFloat};
  made.scheme = scheme_of(2 + static_cast<int>(dice.below(7)), dice.one_in(2) ? 8 : 0,
                          zeros[dice.below(3)], types[dice.below(3)]);
  const double dampings[] = {0, 1e-9, 0.01, 1};
  made.options.damping = dampings[dice.below(4)];
  made.options.act_order = made.options.static_groups = dice.one_in(2);
  made.options.search = dice.one_in(2);
  made.options.refits = static_cast<int>(dice.below(3));
  made.options.descents = static_cast<int>(dice.below(3));
  made.options.block_size = 1 + static_cast<int>(dice.below(2 * columns));
  made.options.round_plainly_on_failure = !dice.one_in(4);
  return made;
}

// tr(D H D^T) in double, and what rounding in float32 may make of it: n + 2 roundings of terms
// whose magnitudes add up to the second number.
std::pair<double, double> loss_and_slack(const Case& made, const QuantizedWeight& found) {
  const at::Tensor change = values_of(found).to(at::kDouble) - made.weight.to(at::kDouble);
  const double loss = (change.mm(made.hessian) * change).sum().item<double>();
  const double size = (change.abs().mm(made.hessian.abs()) * change.abs()).sum().item<double>();
  return {loss, size * static_cast<double>(change.size(1) + 2) * 0x1p-23};
}

void check_result(const Case& made, const GptqResult& found) {
  EXPECT_NO_THROW(check(found.weight, "hostile"));
  EXPECT_TRUE(at::isfinite(values_of(found.weight)).all().item<bool>());
  for (const double number : {found.loss, found.rtn_loss, found.identity_gap, found.damping}) {
    EXPECT_TRUE(std::isfinite(number)) << number;
  }
  if (!made.semidefinite) return;
  const auto [loss, slack] = loss_and_slack(made, found.weight);
  const auto [plain, plain_slack] =
      loss_and_slack(made, rtn_quantize(made.weight, made.scheme).weight);
  EXPECT_LE(loss, plain + slack + plain_slack) << found.plain_rows;
}

TEST(HostileLayers, AreRoundedNoWorseThanPlainlyOrRefused) {
  set_up_numerics();
  std::map<std::string, int> seen;
  for (std::uint64_t seed = 0; seed < 5000 && !testing::Test::HasFailure(); ++seed) {
    const Case made = generated(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + made.kind + ", " + describe(made.scheme));
    try {
      const GptqResult found =
          gptq_quantize(made.weight, made.hessian, made.scheme, made.options, "hostile");
      EXPECT_FALSE(made.spoilt);
      check_result(made, found);
      ++seen[found.rounded_plainly ? "rounded plainly" : "quantized"];
      seen["rows rounded plainly"] += static_cast<int>(found.plain_rows);
    } catch (const NumericRefusal&) {
      EXPECT_TRUE(made.spoilt || !made.options.round_plainly_on_failure);
      ++seen[made.spoilt ? "refused for a number" : "refused for H"];
    }
  }
  for (const auto& [what, count] : seen) {
    EXPECT_GT(count, 50) << what;
    RecordProperty(what, count);
  }
  EXPECT_EQ(seen.size(), 5u);
}

// The search starts from the plain grid and leaves it for less error only.
TEST(HostileLayers, AreRoundedByASearchNoWorseThanPlainly) {
  for (std::uint64_t seed = 0; seed < 2000 && !testing::Test::HasFailure(); ++seed) {
    const Case made = generated(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + made.kind + ", " + describe(made.scheme));
    const bool bad = !at::isfinite(made.weight).all().item<bool>();
    try {
      const RtnResult plain = rtn_quantize(made.weight, made.scheme);
      const RtnResult searched = rtn_quantize(made.weight, made.scheme, {.search = true});
      EXPECT_FALSE(bad);
      EXPECT_TRUE(at::isfinite(values_of(searched.weight)).all().item<bool>());
      EXPECT_TRUE(std::isfinite(plain.relative_error));
      EXPECT_LE(searched.relative_error, plain.relative_error * (1 + 1e-5) + 1e-12);
    } catch (const NumericRefusal&) {
      EXPECT_TRUE(bad);
    }
  }
}

TEST(HostileLayers, HaveScalesThatHurtNoMoreThanNone) {
  for (std::uint64_t seed = 0; seed < 1000 && !testing::Test::HasFailure(); ++seed) {
    const Case made = generated(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + made.kind + ", " + describe(made.scheme));
    AwqProblem problem{{made.weight}, made.hessian, made.hessian.diagonal().abs().sqrt(), {}, {}};
    AwqOptions options;
    options.steps = 4;
    options.for_gptq = seed % 2 == 1;
    try {
      const AwqScales found = search_awq_scales(problem, made.scheme, options);
      EXPECT_FALSE(made.spoilt);
      EXPECT_TRUE(at::isfinite(found.scale).all().item<bool>() &&
                  found.scale.gt(0).all().item<bool>());
      EXPECT_TRUE(std::isfinite(found.loss) && std::isfinite(found.plain_loss))
          << found.loss << " " << found.plain_loss;
      EXPECT_LE(found.loss, found.plain_loss);
    } catch (const NumericRefusal&) {
      EXPECT_TRUE(made.spoilt);
    }
  }
}

}  // namespace
}  // namespace attar
