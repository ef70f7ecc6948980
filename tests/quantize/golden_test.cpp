// The float64 oracles of ../shared/specs/golden (its golden.py says how each was computed).
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/core/numerics.h"
#include "compress/linalg/cholesky.h"
#include "compress/linalg/sweep_input.h"
#include "quantize/gptq.h"
#include "quantize/gptq_sweep.h"
#include "quantize/rtn.h"
#include "tests/quantize/matrices.h"

namespace attar {
namespace {

at::Tensor matrix(const nlohmann::json& rows) {
  std::vector<double> values;
  for (const auto& row : rows) {
    for (const auto& value : row) values.push_back(value.get<double>());
  }
  return at::tensor(values, at::kDouble).reshape({static_cast<std::int64_t>(rows.size()), -1});
}

class Golden : public testing::Test {
 protected:
  void SetUp() override {
    set_up_numerics();
    const std::filesystem::path path = ATTAR_SOURCE_DIR "/../shared/specs/golden/golden.json";
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs ../shared/specs/golden/golden.json";
    std::ifstream(path) >> golden_;
    weight_ = matrix(golden_["W"]).to(at::kFloat);
    const at::Tensor x = matrix(golden_["X"]);
    hessian_ = x.mm(x.t());
  }

  // Scales are float32 of the same quotient; codes are equal.
  void expect_rounding(const std::string& key, int bits, ZeroPoint zero_point) {
    const QuantizedWeight q =
        rtn_quantize(weight_, scheme_of(bits, 0, zero_point, at::kFloat)).weight;
    for (std::int64_t r = 0; r < 3; ++r) {
      const nlohmann::json& row = golden_[key][static_cast<std::size_t>(r)];
      EXPECT_NEAR(q.scale[r].item<double>(), row["scale"].get<double>(), 1e-7) << key << r;
      if (q.zero.defined()) {
        EXPECT_EQ(q.zero[r].item<double>(), row["zero"].get<double>());
      }
      for (std::int64_t j = 0; j < 6; ++j) {
        const double steps =
            golden_["W"][static_cast<std::size_t>(r)][static_cast<std::size_t>(j)].get<double>() /
            row["scale"].get<double>();
        const bool tie = std::abs(steps - std::floor(steps) - 0.5) < 1e-6;
        if (tie) continue;  // a float32 scale decides it otherwise than a float64 one
        EXPECT_EQ(q.codes[r][j].item<int>(), row["q"][static_cast<std::size_t>(j)].get<int>())
            << key << " row " << r << " column " << j;
      }
    }
  }

  nlohmann::json golden_;
  at::Tensor weight_;
  at::Tensor hessian_;
};

TEST_F(Golden, PlainRounding) {
  expect_rounding("rtn_b4_sym0_mse0", 4, ZeroPoint::kInteger);
  expect_rounding("rtn_b3_sym0_mse0", 3, ZeroPoint::kInteger);
  expect_rounding("rtn_b4_sym1_mse0", 4, ZeroPoint::kSymmetric);
  expect_rounding("rtn_b2_sym1_mse0", 2, ZeroPoint::kSymmetric);
}

TEST_F(Golden, SearchedRoundingIsNoWorseThanTheReferencesSearch) {
  const QuantScheme scheme = scheme_of(3, 0, ZeroPoint::kInteger, at::kFloat);
  const at::Tensor found = values_of(rtn_quantize(weight_, scheme, {true, false}).weight);
  for (std::size_t r = 0; r < 3; ++r) {
    const nlohmann::json& row = golden_["rtn_b3_sym0_mse1"][r];
    double reference = 0;
    for (std::size_t j = 0; j < 6; ++j) {
      const double value =
          row["scale"].get<double>() * (row["q"][j].get<double>() - row["zero"].get<double>());
      reference += std::pow(value - golden_["W"][r][j].get<double>(), 2);
    }
    const auto k = static_cast<std::int64_t>(r);
    const double ours = (found[k] - weight_[k]).square().sum().item<double>();
    EXPECT_LE(ours, reference * 1.00001) << "row " << r;
  }
}

TEST_F(Golden, UpperFactorOfTheInverse) {
  const at::Tensor upper =
      linalg::reverse_cholesky_inverse(matrix(golden_["H_damped"]).contiguous()).factor;
  EXPECT_TRUE(upper.allclose(matrix(golden_["U"]), 1e-10, 1e-12));
}

// H of the oracle is 2 X X^T; ours leaves the factor out, which changes the loss only.
TEST_F(Golden, GptqInNaturalOrderAndByActivity) {
  for (const bool act_order : {false, true}) {
    GptqOptions options;
    options.act_order = act_order;
    options.search = false;
    options.refits = options.descents = 0;
    const GptqResult result = gptq_quantize(
        weight_, hessian_ * 2.0, scheme_of(3, 0, ZeroPoint::kInteger, at::kFloat), options);
    const nlohmann::json& expected = golden_[act_order ? "gptq_b3_actorder" : "gptq_b3"];
    EXPECT_TRUE(
        values_of(result.weight).to(at::kDouble).allclose(matrix(expected["Q"]), 1e-5, 1e-6));
    const at::Tensor change = values_of(result.weight).to(at::kDouble) - matrix(golden_["W"]);
    const double loss = (change.mm(matrix(golden_["H_damped"])) * change).sum().item<double>();
    EXPECT_NEAR(loss, 2 * expected["loss"].get<double>(), 1e-5 * loss);
    const double size = (weight_.to(at::kDouble).mm(hessian_) * weight_).sum().item<double>() * 2;
    EXPECT_LT(result.loss * size, golden_["proxy_err_H"]["rtn"].get<double>());
  }
}

TEST_F(Golden, RefinementGoesBelowTheOraclesGptq) {
  GptqOptions options;
  options.refits = 2, options.descents = 4;
  const QuantScheme scheme = scheme_of(3, 0, ZeroPoint::kInteger, at::kFloat);
  const GptqResult result = gptq_quantize(weight_, hessian_ * 2.0, scheme, options);
  const at::Tensor change = values_of(result.weight).to(at::kDouble) - matrix(golden_["W"]);
  const double loss = (change.mm(matrix(golden_["H_damped"])) * change).sum().item<double>();
  EXPECT_LT(loss, golden_["proxy_err_H"]["gptq"].get<double>());
}

// The weight that GPTQ aims at and what is left of |Q X - W X_dense|^2 behind it: on the oracle's
// example 5.99, where GPTAQ's sweep towards the same minimum leaves 9.95.
TEST_F(Golden, TheAimAtTheDenseOutputsAndWhatIsLeftBehindIt) {
  const at::Tensor x = matrix(golden_["X"]), x_dense = matrix(golden_["Xfp"]);
  linalg::CrossGram cross{x_dense.mm(x.t()), x.size(1)};
  const linalg::SweepInput input(hessian_, &cross, {.damping = 0.01, .towards_dense = 1}, "golden");
  const nlohmann::json& expected = golden_["precorrect"];
  const at::Tensor aim = input.aim(weight_, weight_);
  EXPECT_TRUE(aim.allclose(matrix(expected["Wstar"]).to(at::kFloat), 1e-4, 1e-5));
  GptqOptions options;
  options.act_order = options.search = false;
  const QuantScheme scheme = scheme_of(3, 0, ZeroPoint::kInteger, at::kFloat);
  const at::Tensor swept =
      values_of(gptq_quantize(aim, input.hessian(), scheme, options, "golden").weight);
  const at::Tensor target = matrix(golden_["W"]).mm(x_dense);
  EXPECT_NEAR((swept.to(at::kDouble).mm(x) - target).square().sum().item<double>(),
              expected["asym_err"].get<double>(), 1e-3);
}

}  // namespace
}  // namespace attar
