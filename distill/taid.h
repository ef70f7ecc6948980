// TAID's interpolation between student and teacher over training (Shing et al. 2025,
// arXiv:2501.16937): t from `start` to `end`, never behind a straight line, faster while the loss
// falls.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>

namespace attar {

struct TaidConfig {
  double start = 0.4;
  double end = 1.0;
  double alpha = 5e-4;
  double momentum = 0.99;
};

class TaidSchedule {
 public:
  explicit TaidSchedule(TaidConfig config) : config_(config), t_(config.start) {}

  double t() const { return t_; }  // for the step that comes

  // Step `step` (from 0) of `steps` gave this loss. The first call only remembers it; later ones
  //   delta = (before - loss) / (before + 1e-15),  m = momentum m + (1 - momentum) delta
  //   t = min(end, max(start + (end - start) step / steps, t + alpha sigmoid(m) (1 - t)))
  void finished_step(std::int64_t step, std::int64_t steps, double loss);

  nlohmann::json state() const;
  void restore(const nlohmann::json& state);

 private:
  TaidConfig config_;
  double t_, momentum_ = 0;
  std::optional<double> before_;
};

}  // namespace attar
