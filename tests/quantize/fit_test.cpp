#include "quantize/fit.h"

#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/core/random.h"
#include "compress/io/json.h"
#include "compress/train/teachers.h"
#include "quantize/fit_pass.h"
#include "tests/io/temporary_folder.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;

// Items with few sizes and few costs, so that there are ties.
std::vector<std::vector<Choice>> some_items(std::uint64_t seed, std::size_t count) {
  const CounterRandom random(seed, "items");
  std::vector<std::vector<Choice>> items(count);
  std::uint64_t i = 0;
  for (auto& item : items) {
    item.resize(1 + random.below(i++, 4));
    for (Choice& choice : item) {
      choice.bytes = static_cast<std::int64_t>(random.below(i++, 12));
      choice.cost = static_cast<double>(random.below(i++, 9)) / 4;
    }
  }
  return items;
}

// Every selection, one after the other.
Selection brute_force(const std::vector<std::vector<Choice>>& items, std::int64_t budget) {
  Selection best;
  best.cost = INFINITY;
  std::vector<std::size_t> at(items.size(), 0);
  while (true) {
    Selection tried{at, 0, 0};
    for (std::size_t i = 0; i < items.size(); ++i) {
      tried.bytes += items[i][at[i]].bytes;
      tried.cost += items[i][at[i]].cost;
    }
    const bool better =
        tried.cost < best.cost || (tried.cost == best.cost && tried.bytes < best.bytes);
    if (tried.bytes <= budget && better) best = tried;
    std::size_t i = 0;
    while (i < items.size() && ++at[i] == items[i].size()) at[i++] = 0;
    if (i == items.size()) return best;
  }
}

// Costs are quarters: sums are exact in any order.
TEST(Knapsack, FindsWhatTryingEverythingFinds) {
  int fitting = 0;
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    const auto items = some_items(seed, 1 + seed % 7);
    for (std::int64_t budget = 0; budget < 60; budget += 5) {
      const Selection expected = brute_force(items, budget);
      if (std::isinf(expected.cost)) {
        EXPECT_THROW(solve_knapsack(items, budget), DoesNotFit);
        continue;
      }
      ++fitting;
      const Selection found = solve_knapsack(items, budget);
      ASSERT_EQ(found.cost, expected.cost) << seed << " " << budget;
      ASSERT_EQ(found.bytes, expected.bytes) << seed << " " << budget;
      std::int64_t bytes = 0;
      for (std::size_t i = 0; i < items.size(); ++i) bytes += items[i][found.chosen[i]].bytes;
      ASSERT_EQ(bytes, found.bytes);
    }
  }
  EXPECT_GT(fitting, 1000);
}

// As large as a model: 210 layers of 18 formats, costs that fall fourfold a bit. No selection may
// cost less than the relaxation at any price.
TEST(Knapsack, IsNoWorseThanTheRelaxationAllowsOnManyItems) {
  const CounterRandom random(5, "large");
  std::vector<std::vector<Choice>> items(210);
  std::uint64_t i = 0;
  for (auto& item : items) {
    const double weight = std::exp(3 * random.normal(i++));
    const auto size = static_cast<std::int64_t>(1000 * (1 + random.below(i++, 5)));
    for (int bits = 2; bits <= 7; ++bits) {
      for (int group = 0; group < 3; ++group) {
        item.push_back({size * bits + size * 2 / (1 << group) + 7 * group,
                        weight * std::pow(4.0, -bits) * (1 + 0.15 * group)});
      }
    }
  }
  for (const std::int64_t budget : {1'700'000, 2'400'000, 3'900'000}) {
    const Selection found = solve_knapsack(items, budget);
    EXPECT_LE(found.bytes, budget);
    double bound = -INFINITY;
    for (double price = 1e-12; price < 1; price *= 1.02) {
      double value = -price * static_cast<double>(budget);
      for (const auto& item : items) {
        double best = INFINITY;
        for (const Choice& c : item) {
          best = std::min(best, c.cost + price * static_cast<double>(c.bytes));
        }
        value += best;
      }
      bound = std::max(bound, value);
    }
    EXPECT_GE(found.cost, bound);
    EXPECT_LE(found.cost, bound * 1.01);
  }
}

TEST(Knapsack, RefusesWhatCannotBeAndSaysHowMuchItTakes) {
  EXPECT_THROW(solve_knapsack(std::vector<std::vector<Choice>>{{}}, 5), UsageError);
  try {
    solve_knapsack(std::vector<std::vector<Choice>>{{{7, 1}, {9, 0}}}, 5);
    ADD_FAILURE();
  } catch (const DoesNotFit& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("takes 7 bytes, more than the 5"));
  }
}

at::Tensor some_ids(std::int64_t windows, std::string_view purpose) {
  return (normal({windows, 24}, purpose).abs() * 1000).to(at::kLong) % 101;
}

double divergence_of(const Model& model, const at::Tensor& ids) {
  LiveTeacher teacher(random_model(), {101, {}}, {}, {}), changed(model, {101, {}}, {}, {});
  return mean_divergence(teacher, changed, ids);
}

// Small independent noise in one layer: what the Fisher diagonal expects is what happens. 96
// windows leave some 15 % of chance in the diagonal's sum, and the text is another one.
TEST(Fisher, ExpectsTheDivergenceOfNoise) {
  const Model model = random_model();
  const auto fisher = fisher_diagonals(model, some_ids(96, "fisher"), false, {});
  ASSERT_EQ(fisher.size(), 21u);
  for (const auto& [index, role] :
       {std::pair{0, Role::kValue}, {1, Role::kGate}, {2, Role::kDown}, {2, Role::kQuery}}) {
    Model noisy = model.successor(std::make_shared<MemoryModelStore>());
    Block block = noisy.block(index);
    const at::Tensor plain = dense(block[role].weight);
    const at::Tensor noise = 0.03 * plain.std() * normal(plain.sizes().vec(), "noise");
    block[role].weight = DenseWeight{plain + noise};
    noisy.put_block(index, block);
    const double expected =
        (fisher.at(layer_name(index, role)) * noise.square()).sum(at::kDouble).item<double>() / 2;
    const double found = divergence_of(noisy, some_ids(64, "judge"));
    EXPECT_NEAR(expected / found, 1, 0.35) << layer_name(index, role);
  }
}

TEST(Fisher, IsTheSameForAnyNumberOfThreads) {
  set_threads(1);
  const auto one = fisher_diagonals(random_model(), some_ids(4, "fisher"), true, {});
  set_threads(2);
  const auto two = fisher_diagonals(random_model(), some_ids(4, "fisher"), true, {});
  for (const auto& [layer, values] : one) EXPECT_TRUE(at::equal(values, two.at(layer)));
}

class Fitting : public ::testing::Test {
 protected:
  struct Fitted {
    Model output;
    PassReport report;
  };
  Fitted fit(const nlohmann::json& options, const std::string& state = "state") {
    nlohmann::json all = {{"group_sizes", {16, 32, 0}}, {"method", "rtn"}, {"embedding", false}};
    all.update(options);
    const Model input = random_model(), original = random_model();
    Fitted fitted{input.successor(std::make_shared<MemoryModelStore>()), {}};
    const CalibrationTokens tokens = calibration_of(some_ids(40, "calibration"));
    const RunContext context;
    std::filesystem::create_directories(folder.path() / state);
    ModelWork work{input,   fitted.output,         original,      &tokens,
                   nullptr, folder.path() / state, fitted.report, context};
    FitPass(read_fields<FitConfig>(all, "fit")).run(work);
    return fitted;
  }
  static double bits_of(const Model& model) {
    double bytes = 0, weights = 0;
    for (std::int64_t i = 0; i < model.config().layers; ++i) {
      const Block block = model.block(i);
      for (const Role role : kRoles) {
        const WeightShape shape = shape_of(block[role].weight);
        bytes += static_cast<double>(stored_bytes(block[role].weight));
        weights += static_cast<double>(shape.out * shape.in);
      }
    }
    return 8 * bytes / weights;
  }
  io::testing::TemporaryFolder folder;
};

TEST_F(Fitting, KeepsTheBudgetAndIsNoWorseThanOneFormatForAll) {
  for (const double bits : {3.5, 4.5, 5.0}) {
    const Fitted fitted = fit({{"bits", bits}}, std::to_string(bits));
    EXPECT_LE(bits_of(fitted.output), bits);
    EXPECT_GT(bits_of(fitted.output), bits - 0.3);
    const std::string& text = fitted.report.events.front().text;
    double found = 0, expected = 0, uniform = 0;
    ASSERT_EQ(std::sscanf(text.c_str() + text.find("plainly: "), "plainly: %lf, expected %lf",
                          &found, &expected),
              2)
        << text;
    ASSERT_EQ(std::sscanf(text.c_str() + text.find("everywhere: "), "everywhere: %lf", &uniform), 1)
        << text;
    EXPECT_EQ(found <= uniform, fitted.report.events.front().kind == "fit") << text;
    EXPECT_LE(divergence_of(fitted.output, some_ids(40, "calibration")), 1.1 * uniform);
    EXPECT_EQ(fitted.report.changed.size(), 21u);
  }
}

TEST_F(Fitting, DrawsTheLeastCostBySizeBelowEveryFormatAlone) {
  const Fitted fitted = fit({{"bits", 4.0}});
  ASSERT_EQ(fitted.report.curves.size(), 1u);
  const Curve& curve = fitted.report.curves.front();
  const auto& line = curve.line;
  for (std::size_t i = 1; i < line.size(); ++i) {
    EXPECT_GE(line[i].x, line[i - 1].x);
    EXPECT_LE(line[i].y, line[i - 1].y);
  }
  EXPECT_GT(line.front().y, 10 * line.back().y);
  int alone = 0, measured = 0;
  for (const Curve::Point& mark : curve.marks) {
    (mark.filled ? measured : alone) += 1;
    if (mark.filled) continue;
    // The first point of the line that is at least as large.
    for (const Curve::Point& point : line) {
      if (point.x < mark.x) continue;
      EXPECT_LE(point.y, mark.y * (1 + 1e-9)) << mark.name;
      break;
    }
  }
  EXPECT_GT(alone, 3);
  EXPECT_EQ(measured, 2);
}

TEST_F(Fitting, GoesOnWithTheFormatsThatItHadChosen) {
  const Fitted first = fit({{"bits", 4.0}}), again = fit({{"bits", 4.0}});
  EXPECT_EQ(first.report.events.size() + 1, again.report.events.size());
  EXPECT_TRUE(std::any_of(again.report.events.begin(), again.report.events.end(),
                          [](const PassEvent& event) { return event.kind == "fit_resumed"; }));
  for (std::int64_t i = 0; i < 3; ++i) {
    for (const Role role : kRoles) {
      EXPECT_TRUE(at::equal(dense(first.output.block(i)[role].weight),
                            dense(again.output.block(i)[role].weight)));
    }
  }
  // Formats that it would not have chosen are followed.
  const std::filesystem::path kept = folder.path() / "state" / "fit.json";
  nlohmann::json state = io::load_json(kept);
  for (nlohmann::json& layer : state.at("layers")) layer.at(1) = 0;
  std::filesystem::remove_all(folder.path() / "state");
  std::filesystem::create_directories(folder.path() / "state");
  io::write_json(kept, state);
  const Fitted told = fit({{"bits", 4.0}});
  const auto scheme_of = [&](std::int64_t block, Role role) {
    return std::get<QuantizedWeight>(told.output.block(block)[role].weight).scheme;
  };
  for (std::int64_t i = 0; i < 3; ++i) {
    for (const Role role : kRoles) EXPECT_EQ(scheme_of(i, role), scheme_of(0, Role::kQuery));
  }
}

TEST_F(Fitting, ReachesAnAskedDivergenceAndAnAskedSize) {
  const Fitted close = fit({{"kl", 0.02}}, "close"), far = fit({{"kl", 0.2}}, "far");
  EXPECT_LT(bits_of(far.output), bits_of(close.output));
  // On another text than the one that it was held to.
  EXPECT_LE(divergence_of(close.output, some_ids(64, "judge")), 1.3 * 0.02);
  const double found = divergence_of(far.output, some_ids(64, "judge"));
  EXPECT_LE(found, 1.3 * 0.2);
  EXPECT_GT(found, 0.1);  // no more bytes than that takes
  const Model plain = random_model();
  const std::int64_t others = 101 * 64 * 4 + 64 * 4 + 3 * 2 * 64 * 4;
  const Fitted sized = fit({{"size", std::to_string(others + 70'000)}}, "sized");
  const double weights = 3 * (64 * (96 + 32 + 32 + 96) + 3 * 64 * 160);
  EXPECT_LE(bits_of(sized.output), 8 * 70'000 / weights);
  EXPECT_THROW(fit({{"size", "1kB"}}, "small"), DoesNotFit);
}

TEST_F(Fitting, ChoosesForEmbeddingAndHeadAsWell) {
  const Fitted fitted =
      fit({{"bits", 4.8}, {"embedding", true}, {"types", {"Q4_0", "IQ4_NL", "Q5_0", "Q8_0"}}});
  const Weight embedding = fitted.output.embedding();
  ASSERT_TRUE(std::holds_alternative<QuantizedWeight>(embedding));
  const double block_weights = 3 * (64 * (96 + 32 + 32 + 96) + 3 * 64 * 160), rows = 101 * 64;
  const double bits =
      bits_of(fitted.output) * block_weights + 8 * static_cast<double>(stored_bytes(embedding));
  EXPECT_LE(bits / (block_weights + rows), 4.8);
  EXPECT_GT(bits / (block_weights + rows), 4.7);
  EXPECT_EQ(fitted.report.changed.back().layer, "model.embed_tokens");
  const Fitted left = fit({{"bits", 4.8}, {"types", {"Q4_0", "Q8_0"}}}, "left");
  EXPECT_TRUE(std::holds_alternative<DenseWeight>(left.output.embedding()));
}

TEST(FitPass, RefusesOptionsThatSayNothingOrTooMuch) {
  const auto refusal = [](const nlohmann::json& options) -> std::string {
    try {
      FitPass pass(read_fields<FitConfig>(options, "fit"));
    } catch (const UsageError& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(refusal({{"bits", 4}}), "accepted");
  EXPECT_THAT(refusal(nlohmann::json::object()), ::testing::HasSubstr("got 0 of them"));
  EXPECT_THAT(refusal({{"bits", 4}, {"kl", 0.1}}), ::testing::HasSubstr("got 2 of them"));
  EXPECT_THAT(refusal({{"size", "80 parsecs"}}), ::testing::HasSubstr("80 parsecs"));
  EXPECT_THAT(refusal({{"bits", 4}, {"widths", {9}}}), ::testing::HasSubstr("widths"));
  EXPECT_THAT(refusal({{"bits", 4}, {"types", {"Q9_K"}}}), ::testing::HasSubstr("Q9_K"));
  EXPECT_EQ(read_size("80MB", ""), 80'000'000);
  EXPECT_EQ(read_size("1.5 MiB", ""), 1'572'864);
}

}  // namespace
}  // namespace attar
