#include "quantize/tune.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <atomic>

#include "compress/core/errors.h"
#include "compress/core/grid.h"
#include "compress/core/numerics.h"
#include "compress/core/quantized_linear.h"
#include "quantize/rtn.h"
#include "quantize/tune_pass.h"
#include "tests/io/temporary_folder.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;
using testing::small_config;

QuantScheme scheme_of(ZeroPoint zero_point, int bits = 3, std::int64_t group = 16) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = group;
  scheme.zero_point = zero_point;
  return scheme;
}

QuantizedWeight some_codes(ZeroPoint zero_point) {
  return rtn_quantize(normal({12, 48}, "codes") + 0.3, scheme_of(zero_point)).weight;
}

// The values of a grid in double, with gradients.
at::Tensor values_of(const QuantizedWeight& w, const at::Tensor& scale, const at::Tensor& zero) {
  const at::Tensor codes = w.codes.to(at::kDouble).view({12, 3, 16});
  const at::Tensor s = scale.unsqueeze(2);
  switch (w.scheme.zero_point) {
    case ZeroPoint::kSymmetric:
      return ((codes - 4) * s).view({12, 48});
    case ZeroPoint::kInteger:
      return ((codes - zero.unsqueeze(2)) * s).view({12, 48});
    default:
      return (codes * s + zero.unsqueeze(2)).view({12, 48});
  }
}

at::Tensor doubled(const at::Tensor& t) {
  return t.defined() ? t.detach().to(at::kDouble) : at::Tensor();
}

class GridOf : public ::testing::TestWithParam<ZeroPoint> {};

// loss = sum of sin(W + c), differentiated by central differences in double: with steps of 1e-5
// they are off by some 1e-10; the gradient is one rounding to float32 of each cosine and one of the
// sum.
TEST_P(GridOf, GradientsEqualFiniteDifferences) {
  const QuantizedWeight w = some_codes(GetParam());
  const at::Tensor shift = normal({12, 48}, "shift").to(at::kDouble);
  const at::Tensor scale = doubled(w.scale), zero = doubled(w.zero);
  const auto loss = [&] { return (values_of(w, scale, zero) + shift).sin().sum().item<double>(); };
  const GridGradient found =
      grid_gradient((values_of(w, scale, zero) + shift).cos().to(at::kFloat), w);
  const auto compare = [&](const at::Tensor& at, const at::Tensor& gradient) {
    auto* value = at.mutable_data_ptr<double>();
    for (std::int64_t i = 0; i < at.numel(); ++i) {
      const double start = value[i], step = 1e-5;
      value[i] = start + step;
      const double more = loss();
      value[i] = start - step;
      const double less = loss();
      value[i] = start;
      // 16 cosines of at most 1 times codes of at most 7, each rounded once.
      EXPECT_NEAR(gradient.flatten()[i].item<double>(), (more - less) / (2 * step),
                  16 * 7 * 1.2e-7);
    }
  };
  compare(scale, found.scale);
  EXPECT_EQ(found.minimum.defined(), GetParam() == ZeroPoint::kMinimum);
  if (found.minimum.defined()) compare(zero, found.minimum);
}

TEST_P(GridOf, LinearGradientsEqualPlainOnesInDoubleForAnyThreads) {
  const QuantizedWeight w = some_codes(GetParam());
  const at::Tensor x = normal({2, 70, 48}, "x"), bias = normal({12}, "bias");
  const at::Tensor back = normal({2, 70, 12}, "back");
  const bool real = GetParam() == ZeroPoint::kMinimum;
  const auto leaf = [](const at::Tensor& t) { return t.detach().clone().requires_grad_(true); };
  const auto ours = [&](int threads) {
    set_threads(threads);
    QuantizedWeight learning = w;
    learning.scale = leaf(w.scale);
    if (real) learning.zero = leaf(w.zero);
    std::vector<at::Tensor> leaves = {leaf(x), leaf(bias), learning.scale};
    if (real) leaves.push_back(learning.zero);
    const at::Tensor out = quantized_linear_with_gradient(leaves[0], learning, leaves[1]);
    std::vector<at::Tensor> found = torch::autograd::grad({out}, leaves, {back});
    found.push_back(out.detach());
    return found;
  };
  std::vector<at::Tensor> leaves = {leaf(x.to(at::kDouble)), leaf(bias.to(at::kDouble)),
                                    leaf(doubled(w.scale))};
  const at::Tensor zero = w.zero.defined() ? leaf(doubled(w.zero)) : at::Tensor();
  if (real) leaves.push_back(zero);
  const at::Tensor out = leaves[0].matmul(values_of(w, leaves[2], zero).t()) + leaves[1];
  std::vector<at::Tensor> expected = torch::autograd::grad({out}, leaves, {back.to(at::kDouble)});
  expected.push_back(out.detach());
  const auto one = ours(1), two = ours(2);
  ASSERT_EQ(one.size(), expected.size());
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(at::equal(one[i], two[i])) << i;
    EXPECT_LE((one[i].to(at::kDouble) - expected[i]).norm().item<double>(),
              1e-6 * expected[i].norm().item<double>())
        << i;
  }
}

INSTANTIATE_TEST_SUITE_P(ZeroPoints, GridOf,
                         ::testing::Values(ZeroPoint::kSymmetric, ZeroPoint::kInteger,
                                           ZeroPoint::kMinimum),
                         [](const auto& info) { return std::string(to_string(info.param)); });

// A step of value / unit, to the rounding of value * unit.
TEST(AdamW, LearnsInUnits) {
  const at::Tensor value = normal({30}, "value"), unit = normal({30}, "unit").abs() + 0.1;
  const auto parameter = [](at::Tensor start, at::Tensor one) {
    Parameter p{.name = "p", .value = start.clone(), .decays = false};
    p.unit = one;
    return std::vector<Parameter>{p};
  };
  auto plain = parameter(value / unit, {}), scaled = parameter(value, unit);
  prepare(plain, {});
  prepare(scaled, {});
  for (int step = 0; step < 5; ++step) {
    for (auto* each : {&plain, &scaled}) {
      (*each)[0].gradient.copy_(normal({30}, "gradient" + std::to_string(step)));
      adamw_step(*each, {}, 0.01, step);
    }
  }
  const at::Tensor difference = (plain[0].value * unit - scaled[0].value).abs();
  EXPECT_LE((difference / scaled[0].value.abs()).max().item<double>(), 2e-6);
}

TEST(SplitWindows, JudgesByWindowsThatItDoesNotLearnFrom) {
  const at::Tensor windows = at::arange(40, at::kLong).view({20, 2});
  const SplitWindows split = split_windows(windows, 3);
  EXPECT_EQ(split.judge.size(0), 3);
  const at::Tensor all = at::cat({split.learn, split.judge}).flatten();
  EXPECT_TRUE(at::equal(std::get<0>(all.sort()), windows.flatten()));
  EXPECT_EQ(split.judge[2][0].item<std::int64_t>(), 38);
  EXPECT_EQ(split_windows(windows, 100).judge.size(0), 10);
  EXPECT_THROW(split_windows(windows.narrow(0, 0, 1), 1), BadInput);
}

// The random model with every layer rounded to three bits, kinds of grids in turn.
Model rounded_model() {
  const Model original = random_model();
  Model model = original.successor(std::make_shared<MemoryModelStore>());
  constexpr ZeroPoint kKinds[] = {ZeroPoint::kSymmetric, ZeroPoint::kInteger, ZeroPoint::kMinimum};
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    Block block = model.block(i);
    for (const Role role : kRoles) {
      block[role].weight =
          rtn_quantize(dense(block[role].weight), scheme_of(kKinds[(index_of(role) + i) % 3]))
              .weight;
    }
    model.put_block(i, block);
  }
  return model;
}

struct Tuned {
  Model input, output;
  PassReport report;

  const std::string& text_of(std::string_view kind) const {
    static const std::string none;
    for (const PassEvent& event : report.events) {
      if (event.kind == kind) return event.text;
    }
    return none;
  }
};

class Tuning : public ::testing::Test {
 protected:
  Tuned tune(const nlohmann::json& options, const std::string& state,
             const RunContext& context = {}) {
    nlohmann::json all = {
        {"learning_rate", 0.01}, {"batch", 8}, {"epochs", 4}, {"save_seconds", 1000}};
    all.update(options);
    return tune_with(all, state, context);
  }
  Tuned tune_with(const nlohmann::json& options, const std::string& state,
                  const RunContext& context) {
    const Model input = rounded_model(), original = random_model();
    Tuned tuned{input, input.successor(std::make_shared<MemoryModelStore>()), {}};
    const CalibrationTokens tokens =
        calibration_of((normal({64, 24}, "ids").abs() * 1000).to(at::kLong) % 101);
    const std::filesystem::path place = folder.path() / state;
    std::filesystem::create_directories(place);
    ModelWork work{tuned.input, tuned.output, original,     &tokens,
                   nullptr,     place,        tuned.report, context};
    TunePass(read_fields<TuneConfig>(options, "tune")).run(work);
    return tuned;
  }
  static std::pair<double, double> divergences(const Tuned& tuned) {
    double before = 0, after = 0;
    const std::string text = tuned.text_of("tuned") + tuned.text_of("tune_kept_start");
    const auto at = text.find("windows: ");
    EXPECT_NE(at, std::string::npos) << text;
    EXPECT_EQ(std::sscanf(text.c_str() + at, "windows: %lf before, %lf after", &before, &after), 2);
    return {before, after};
  }
  static void expect_same(const Model& a, const Model& b) {
    for (std::int64_t i = 0; i < a.config().layers; ++i) {
      const Block one = a.block(i), two = b.block(i);
      EXPECT_TRUE(at::equal(one[Norm::kAttention], two[Norm::kAttention]));
      for (const Role role : kRoles) {
        const auto& x = std::get<QuantizedWeight>(one[role].weight);
        const auto& y = std::get<QuantizedWeight>(two[role].weight);
        EXPECT_TRUE(at::equal(x.codes, y.codes) && at::equal(x.scale, y.scale)) << i;
        if (x.zero.defined()) {
          EXPECT_TRUE(at::equal(x.zero, y.zero)) << i;
        }
      }
    }
    EXPECT_TRUE(at::equal(a.final_norm(), b.final_norm()));
  }
  io::testing::TemporaryFolder folder;
};

// A random model at three bits: the grid alone takes more than a tenth of the divergence of text
// that it has not seen; nothing at all moves without gradients.
TEST_F(Tuning, LowersTheDivergenceOfHeldOutTextAndMovesNoCode) {
  const Tuned tuned = tune({{"learn", {"scales"}}}, "a");
  const auto [before, after] = divergences(tuned);
  EXPECT_LT(after, 0.9 * before);
  EXPECT_GT(after, 0.05 * before);
  bool moved = false;
  for (std::int64_t i = 0; i < 3; ++i) {
    const Block old_block = tuned.input.block(i), new_block = tuned.output.block(i);
    EXPECT_TRUE(at::equal(old_block[Norm::kAttention], new_block[Norm::kAttention]));
    for (const Role role : kRoles) {
      const auto& x = std::get<QuantizedWeight>(old_block[role].weight);
      const auto& y = std::get<QuantizedWeight>(new_block[role].weight);
      check(Weight(y), "tuned");
      EXPECT_EQ(x.scheme, y.scheme);
      EXPECT_TRUE(at::equal(x.codes, y.codes));
      EXPECT_TRUE(at::equal(y.scale, y.scale.to(at::kHalf).to(at::kFloat)));
      moved = moved || !at::equal(x.scale, y.scale);
      if (x.scheme.zero_point == ZeroPoint::kInteger) {
        EXPECT_TRUE(at::equal(x.zero, y.zero));
      }
      if (x.scheme.zero_point == ZeroPoint::kMinimum) {
        EXPECT_FALSE(at::equal(x.zero, y.zero));
        EXPECT_TRUE(at::equal(y.zero, y.zero.to(at::kHalf).to(at::kFloat)));
      }
    }
  }
  EXPECT_TRUE(moved);
  EXPECT_THAT(tuned.text_of("tuned_scales"),
              ::testing::HasSubstr("21 layers in codes, of which 0"));
}

// Codes alone lower it too, on grids that stay.
TEST_F(Tuning, CodesLearnWhenTheyAreTold) {
  const Tuned tuned = tune({{"learn", {"codes"}}}, "codes");
  const auto [before, after] = divergences(tuned);
  EXPECT_LT(after, 0.95 * before);
  std::int64_t changed = 0;
  for (std::int64_t i = 0; i < 3; ++i) {
    const Block old_block = tuned.input.block(i), new_block = tuned.output.block(i);
    for (const Role role : kRoles) {
      const auto& x = std::get<QuantizedWeight>(old_block[role].weight);
      const auto& y = std::get<QuantizedWeight>(new_block[role].weight);
      check(Weight(y), "tuned");
      EXPECT_EQ(x.scheme, y.scheme);
      EXPECT_TRUE(at::equal(x.scale, y.scale));
      changed += y.codes.ne(x.codes).sum().item<std::int64_t>();
    }
  }
  EXPECT_THAT(tuned.text_of("tuned_scales"),
              ::testing::HasSubstr("of which " + std::to_string(changed) + " changed"));
  EXPECT_GT(changed, 0);
  EXPECT_EQ(tuned.text_of("codes_held"), "");  // the embedding is plain
  const auto planned = [](const nlohmann::json& learn) {
    return TunePass(read_fields<TuneConfig>({{"learn", learn}}, "tune"))
        .plan(testing::small_config())
        .front();
  };
  EXPECT_TRUE(planned({"codes"}).recodes && !planned({"codes"}).keeps_zeros);
  EXPECT_TRUE(!planned({"scales"}).recodes && planned({"scales"}).keeps_zeros);
}

TEST_F(Tuning, KeepsTheStartWhenTheEndIsNotBetter) {
  const Tuned still = tune({{"learning_rate", 0.0}}, "still");
  const Tuned wild = tune({{"learning_rate", 1.0}}, "wild");
  for (const Tuned* each : {&still, &wild}) {
    EXPECT_THAT(each->text_of("tune_kept_start"), ::testing::HasSubstr("the start was kept"));
    expect_same(each->input, each->output);
  }
}

TEST_F(Tuning, ThreadsRecomputingAndInterruptionsChangeNoBit) {
  for (const std::string last : {"corrections", "codes"}) {
    nlohmann::json options = {
        {"epochs", 1}, {"average", 0.5}, {"learn", {"scales", "norms", last}}};
    set_threads(1);
    const Tuned whole = tune(options, "whole " + last);
    set_threads(2);
    std::atomic<bool> stop = false;
    RunContext context;
    context.stop = &stop;
    int steps = 0;
    context.progress = [&](std::string_view) { stop = ++steps == 3; };
    options["recompute"] = false;
    EXPECT_THROW(tune(options, "two " + last, context), Stopped);
    const Tuned resumed = tune(options, "two " + last);
    EXPECT_THAT(whole.text_of("tuned"), ::testing::HasSubstr("after"));
    EXPECT_EQ(whole.text_of("tuned"), resumed.text_of("tuned"));
    expect_same(whole.output, resumed.output);
  }
}

TEST_F(Tuning, NeedsCodesAndRefusesOptionsThatDoNotGoTogether) {
  const auto made = [](const nlohmann::json& options) {
    return TunePass(read_fields<TuneConfig>(options, "tune"));
  };
  EXPECT_THROW(made({{"learn", {"weights"}}}), UsageError);
  EXPECT_THROW(made({{"cache", "folder"}, {"loss", "reverse_kl"}}), UsageError);
  EXPECT_EQ(made({}).needs().codes, NeededCodes::kAny);
  EXPECT_TRUE(made({}).needs().calibration);
  EXPECT_FALSE(made({{"text", "a.txt"}}).needs().calibration);
}

}  // namespace
}  // namespace attar
