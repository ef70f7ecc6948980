#include "distill/taid.h"

#include <algorithm>
#include <cmath>

namespace attar {

void TaidSchedule::finished_step(std::int64_t step, std::int64_t steps, double loss) {
  if (before_) {
    const double delta = (*before_ - loss) / (*before_ + 1e-15);
    momentum_ = config_.momentum * momentum_ + (1 - config_.momentum) * delta;
    const double line = config_.start + (config_.end - config_.start) * static_cast<double>(step) /
                                            static_cast<double>(steps);
    const double faster = t_ + config_.alpha / (1 + std::exp(-momentum_)) * (1 - t_);
    t_ = std::min(config_.end, std::max(line, faster));
  }
  before_ = loss;
}

nlohmann::json TaidSchedule::state() const {
  nlohmann::json state = {{"t", t_}, {"momentum", momentum_}};
  if (before_) state["before"] = *before_;
  return state;
}

void TaidSchedule::restore(const nlohmann::json& state) {
  t_ = state.at("t").get<double>();
  momentum_ = state.at("momentum").get<double>();
  before_.reset();
  if (state.contains("before")) before_ = state["before"].get<double>();
}

}  // namespace attar
