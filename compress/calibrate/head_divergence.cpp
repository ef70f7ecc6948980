#include "compress/calibrate/head_divergence.h"

#include <vector>

#include "compress/core/errors.h"
#include "compress/core/forward.h"
#include "compress/kernels/log_softmax/log_softmax.h"
#include "compress/linalg/product.h"

namespace attar {
namespace {

constexpr std::int64_t kRows = 256;  // of logits at a time

}  // namespace

HeadDivergence::HeadDivergence(const Model& teacher, at::Tensor hidden)
    : head_(dense(teacher.head())),
      final_norm_(teacher.final_norm()),
      eps_(teacher.config().norm_eps),
      teacher_(std::move(hidden)) {}

at::Tensor HeadDivergence::normed(const at::Tensor& hidden, std::int64_t window) const {
  return rms_norm(hidden.select(0, window), final_norm_, eps_);
}

double HeadDivergence::mean(const at::Tensor& hidden, const RunContext& context) const {
  const std::int64_t length = hidden.size(1), vocabulary = head_.size(0);
  double sum = 0;
  for (std::int64_t window = 0; window < hidden.size(0); ++window) {
    context.check_stop();
    const at::Tensor before = normed(teacher_, window), after = normed(hidden, window);
    for (std::int64_t first = 0; first < length - 1; first += kRows) {
      const std::int64_t rows = std::min(kRows, length - 1 - first);
      const at::Tensor p = linalg::product(before.narrow(0, first, rows), head_);
      const at::Tensor q = linalg::product(after.narrow(0, first, rows), head_);
      const auto* teacher = p.const_data_ptr<float>();
      const auto* student = q.const_data_ptr<float>();
      std::vector<kernels::LogitStats> p_stats(static_cast<std::size_t>(rows)), q_stats(p_stats);
      std::vector<kernels::RowDivergence> found(p_stats.size());
      kernels::log_softmax_stats({teacher, rows, vocabulary, vocabulary, nullptr, p_stats.data()});
      kernels::log_softmax_stats({student, rows, vocabulary, vocabulary, nullptr, q_stats.data()});
      kernels::divergence({teacher, student, rows, vocabulary, vocabulary, vocabulary,
                           p_stats.data(), q_stats.data(), found.data()});
      for (std::size_t row = 0; row < found.size(); ++row) {
        require<NumericRefusal>(p_stats[row].non_finite + q_stats[row].non_finite == 0,
                                "divergence",
                                "a logit is not finite; look for NaN weights with "
                                "'attar inspect'");
        sum += std::max(0.0, found[row].kl);
      }
    }
  }
  return sum / static_cast<double>(hidden.size(0) * (length - 1));
}

}  // namespace attar
