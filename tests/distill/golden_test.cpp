// The float64 oracles of ../shared/specs/golden (generator: golden.py, its section on
// distillation).
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "compress/io/json.h"
#include "compress/train/response_gradient.h"
#include "distill/taid.h"

namespace attar {
namespace {

class Golden : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path file = ATTAR_SOURCE_DIR "/../shared/specs/golden/golden.json";
    if (!std::filesystem::exists(file)) GTEST_SKIP() << "needs ../shared/specs/golden/golden.json";
    golden = io::load_json(file);
  }
  // The loss of logits that a head of ones and a hidden state of logits would give.
  double loss(const ResponseTerm& term) const {
    const auto row = [&](const char* name) {
      const auto values = golden["kd"][name].get<std::vector<double>>();
      std::vector<float> narrow(values.begin(), values.end());
      return at::tensor(narrow).unsqueeze(0);
    };
    const at::Tensor identity =
        at::tensor({1.f, 0.f, 0.f, 0.f, 0.f, 1.f, 0.f, 0.f, 0.f, 0.f, 1.f, 0.f, 0.f, 0.f, 0.f, 1.f})
            .view({4, 4});
    ResponseTargets targets;
    targets.tokens = at::tensor({std::int64_t{0}});
    targets.teacher_hidden = row("teacher");
    targets.teacher_head = identity;
    return response_gradient(row("student"), identity, {}, targets, {&term, 1}, 1).losses[0];
  }
  double value(const char* name) const { return golden["kd"][name].get<double>(); }

  nlohmann::json golden;
};

// Seven digits: what one row of float32 logits can give.
constexpr double kNear = 3e-7;

TEST_F(Golden, ForwardAndReverseKlAndTemperature) {
  EXPECT_NEAR(loss({ResponseKind::forward_kl}), value("fkl"), kNear);
  EXPECT_NEAR(loss({ResponseKind::forward_kl, 1, 2, 0}), value("fkl_T2"), 4 * kNear);
  EXPECT_NEAR(loss({ResponseKind::reverse_kl}), value("rkl"), kNear);
  EXPECT_NEAR(loss({ResponseKind::total_variation}), value("tvd"), kNear);
}

TEST_F(Golden, MixturesOfTeacherAndStudent) {
  for (const auto& [mix, expected] : golden["kd"]["jsd"].items()) {
    EXPECT_NEAR(loss({ResponseKind::jensen_shannon, 1, 1, std::stod(mix)}), expected.get<double>(),
                kNear)
        << mix;
  }
  EXPECT_NEAR(loss({ResponseKind::skew_forward, 1, 1, 0.1}), value("skew_fkl_01"), kNear);
  EXPECT_NEAR(loss({ResponseKind::skew_reverse, 1, 1, 0.1}), value("skew_rkl_01"), kNear);
  EXPECT_NEAR(loss({ResponseKind::taid, 1, 1, 0.4}), value("taid_t04_ce"), kNear);
}

TEST_F(Golden, TaidsSchedule) {
  const double losses[] = {3., 2.9, 2.5, 2.6, 2.4, 2.3};
  const auto course = [&](TaidConfig config, std::int64_t steps, bool interrupted) {
    TaidSchedule schedule(config);
    std::vector<double> course;
    for (std::int64_t step = 0; step < 6; ++step) {
      schedule.finished_step(step, steps, losses[step]);
      course.push_back(schedule.t());
      if (interrupted) {
        TaidSchedule next(config);
        next.restore(nlohmann::json::parse(schedule.state().dump()));
        schedule = next;
      }
    }
    return course;
  };
  for (const bool interrupted : {false, true}) {
    EXPECT_EQ(course({}, 10, interrupted), golden["taid_schedule"].get<std::vector<double>>());
    EXPECT_EQ(course({.alpha = 0.05}, 1000000000, interrupted),
              golden["taid_schedule_adaptive"].get<std::vector<double>>());
  }
}

}  // namespace
}  // namespace attar
