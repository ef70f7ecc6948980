#include "quantize/tune_pass.h"

#include <cmath>
#include <sstream>

#include "compress/core/errors.h"
#include "compress/train/learning_pass.h"
#include "quantize/tune.h"

namespace attar {
namespace {

// All windows that there are to learn from and to judge by, [N, T].
at::Tensor windows_of(const TuneConfig& config, const ModelWork& work) {
  if (config.text.empty()) return work.calibration->ids;
  const TrainingWindows windows(
      read_documents({config.text, config.separator, config.end_of_text}, *work.tokenizer),
      config.length, work.context.seed, /*shift=*/false);
  return windows.inputs(0, windows.count());
}

void keep_start(const Model& input, Model& output) {
  OuterWeights outer{input.embedding(), input.final_norm(), std::nullopt};
  if (!input.config().tied_head) outer.head = input.head();
  output.put_outer(outer);
  for (std::int64_t i = 0; i < input.config().layers; ++i) output.put_block(i, input.block(i));
}

std::string describe(const GridMoves& moves) {
  std::ostringstream text;
  text.precision(3);
  text << moves.layers << " layers in codes, of which " << moves.codes
       << " changed; scales moved by " << 100 * moves.mean_move << " % in the mean, "
       << 100 * moves.largest_move << " % at most; rounding them for the file moved them by "
       << 100 * moves.largest_rounding << " % at most";
  return text.str();
}

}  // namespace

TunePass::TunePass(TuneConfig config)
    : config_(std::move(config)),
      learning_(learning_from(config_.learn, kName, config_.code_rate)) {
  require<UsageError>(!learning_.weights, kName,
                      "learn: weights stay as they are here; known: scales, norms, corrections, "
                      "embedding; distill trains plain weights, before they are rounded");
  require<UsageError>(config_.cache.empty() || config_.loss == "forward_kl", kName,
                      "a cache serves forward_kl, not ", config_.loss, "; leave cache out");
}

double TunePass::learning_tokens(double tokens, std::int64_t /*length*/) const {
  constexpr double kBytes = 4;  // of a token of English
  if (!config_.text.empty()) tokens = 0;
  for (const std::string& file : config_.text) {
    std::error_code missing;  // which reading it says
    const std::uintmax_t bytes = std::filesystem::file_size(file, missing);
    if (!missing) tokens += static_cast<double>(bytes) / kBytes;
  }
  return config_.epochs * tokens;
}

std::vector<PlannedLayer> TunePass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned =
      plan_every_layer(config, learning_.codes ? "tuned, same grid" : "scales tuned, codes stay");
  // The layer keeps its grid and its bytes.
  for (PlannedLayer& layer : planned) {
    layer.changes = false;
    layer.recodes = learning_.codes;
    layer.keeps_zeros = !learning_.codes;
  }
  return planned;
}

PlannedRows TunePass::plan_rows(const ModelConfig& /*config*/) const {
  return plan_learnt_rows(learning_, "tuned");
}

std::int64_t TunePass::working_bytes(const ModelConfig& config) const {
  const std::int64_t weights = linear_weights(config);
  // Codes; values, gradients, moments and units of groups of 64; the dense head twice. Of codes
  // that learn values, places, gradients, moments and the average.
  const std::int64_t codes = learning_.codes ? 4 * (config_.average > 0 ? 6 : 5) * weights : 0;
  return codes + weights + weights / 64 * 4 * 5 + 8 * config.vocabulary * config.hidden +
         activation_bytes(config, config_.length, config_.recompute);
}

std::int64_t TunePass::state_bytes(const ModelConfig& config) const {
  if (!learning_.codes) return 0;
  // A new state is written beside the old one.
  return 2 * 4 * (config_.average > 0 ? 4 : 3) * linear_weights(config);
}

void TunePass::run(ModelWork& work) const {
  const SplitWindows split = split_windows(windows_of(config_, work), config_.held_out);
  const TrainingWindows windows(tokens_of_windows(split.learn), split.learn.size(1),
                                work.context.seed, /*shift=*/false);
  TrainConfig training = config_;
  training.length = windows.length();
  if (learning_.codes) training.epsilon = 1e-12;  // a single weight's gradient is tiny
  training.steps =
      std::max<std::int64_t>(1, std::llround(config_.epochs * static_cast<double>(windows.count()) /
                                             static_cast<double>(config_.batch)));

  const OpenTeacher open =
      open_teacher(config_.teacher, kName, work.input, work.original, work.tokenizer);
  const std::int64_t common = open.map.common;
  const auto live = [&] {
    return std::make_unique<LiveTeacher>(open.model, open.map, std::vector<std::int64_t>{},
                                         std::vector<std::int64_t>{});
  };
  const auto held_out_kl = [&](const Model& model) {
    LiveTeacher changed(model, {common, {}}, {}, {});
    return mean_divergence(*live(), changed, split.judge);
  };
  const double before = held_out_kl(work.input);

  Teachers teachers{live(), nullptr};
  if (!config_.cache.empty()) {
    const CacheOptions options{config_.cache_kind, config_.cache_count, work.context.seed};
    teachers.cached = written_teacher(config_.cache, options, windows, training, open.identity,
                                      *teachers.live, work.report, work.context);
    teachers.live.reset();
  }
  Learning learning = learning_;
  learning.seed = work.context.seed;
  Student student(work.input, learning);
  use_own_sizes(student);
  // Layers in codes of which a part does not learn that was to.
  const auto held = [&](std::string_view part) {
    return layers_in_codes(work.input) -
           std::count_if(student.parameters().begin(), student.parameters().end(),
                         [&](const Parameter& p) { return p.name.ends_with(part); });
  };
  if (const auto count = held(".scale"); learning.scales && count > 0) {
    work.report.events.push_back({"model", "scales_held",
                                  std::to_string(count) +
                                      " layers are on grids of super-blocks, whose scales share a "
                                      "number: they stay, what stands beside them learns"});
  }
  if (const auto count = held(".codes"); learning.codes && count > 0) {
    work.report.events.push_back({"model", "codes_held",
                                  std::to_string(count) +
                                      " layers keep their codes: embedding, head and layers with a "
                                      "correction"});
  }
  const nlohmann::json decides = {config_.loss,
                                  config_.learn,
                                  config_.code_rate,
                                  config_.cache.empty() ? "" : config_.cache_kind,
                                  config_.cache.empty() ? 0 : config_.cache_count,
                                  open.identity};
  TeacherLoss objective(std::move(teachers), config_.loss, common, config_.recompute,
                        decides.dump());
  const TrainOutcome outcome = train(student, objective, windows, training, identity_of(work.input),
                                     work.state, work.context);
  put_trained(student, config_.average > 0, work.output);
  const double after = held_out_kl(work.output);

  const bool better = after < before;
  std::ostringstream verdict;
  verdict.precision(4);
  verdict << "KL to the teacher on " << split.judge.size(0) << " held-out windows: " << before
          << " before, " << after << " after" << (better ? "" : "; the start was kept");
  work.report.events.push_back({"model", better ? "tuned" : "tune_kept_start", verdict.str()});
  work.report.events.push_back(
      {"model", "tuned_scales", describe(grid_moves(work.input, work.output, student))});
  if (!better) keep_start(work.input, work.output);
  report_training(outcome, windows, work.input, work.output, work.report);
}

}  // namespace attar
