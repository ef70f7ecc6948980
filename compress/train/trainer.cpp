#include "compress/train/trainer.h"

#include <chrono>
#include <cmath>
#include <ctime>

#include "compress/core/allocator.h"
#include "compress/core/errors.h"
#include "compress/io/hash.h"
#include "compress/train/response_gradient.h"
#include "compress/train/train_state.h"

namespace attar {
namespace {

using nlohmann::json;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double processor_now() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

// A skipped step has numbers that JSON does not know.
json to_json(double number) {
  return std::isfinite(number) ? json(number) : json(std::to_string(number));
}

double number_from(const json& value) {
  return value.is_string() ? std::stod(value.get<std::string>()) : value.get<double>();
}

json to_json(const std::vector<TrainedStep>& history) {
  json all = json::array();
  for (const TrainedStep& step : history) {
    json means = json::array();
    for (const ObjectiveTerm& term : step.means) means.push_back({term.name, to_json(term.sum)});
    all.push_back({step.step, means, to_json(step.gradient_norm), step.rate});
  }
  return all;
}

std::vector<TrainedStep> history_from(const json& all) {
  std::vector<TrainedStep> history;
  for (const json& one : all) {
    TrainedStep step{
        one.at(0).get<std::int64_t>(), {}, number_from(one.at(2)), one.at(3).get<double>()};
    for (const json& term : one.at(1)) {
      step.means.push_back({term.at(0).get<std::string>(), number_from(term.at(1))});
    }
    history.push_back(std::move(step));
  }
  return history;
}

// Everything that decides the weights at the end; not what only decides time and memory.
std::string fingerprint_of(const TrainConfig& config, const Objective& objective,
                           const TrainingWindows& windows, const std::string& data_id,
                           std::uint64_t seed) {
  const json all = {config.steps,
                    config.batch,
                    config.length,
                    config.learning_rate,
                    config.warmup,
                    config.floor,
                    config.weight_decay,
                    config.clip,
                    config.epsilon,
                    config.average,
                    config.shift,
                    objective.fingerprint(),
                    windows.tokens().sha256,
                    data_id,
                    seed,
                    kMicroTokens};
  return io::sha256_hex(all.dump());
}

class Loop {
 public:
  Loop(Student& student, Objective& objective, const TrainingWindows& windows,
       const TrainConfig& config, std::string fingerprint, std::filesystem::path file,
       const RunContext& context)
      : student_(student),
        objective_(objective),
        windows_(windows),
        config_(config),
        fingerprint_(std::move(fingerprint)),
        file_(std::move(file)),
        context_(context) {}

  TrainOutcome run() {
    prepare(student_.parameters(), config_.optimizer());
    restore();
    const double begin = now(), processor = processor_now();
    double saved = begin;
    const Schedule schedule = config_.schedule();
    for (; step_ < config_.steps; ++step_) {
      if (context_.stop != nullptr && context_.stop->load()) {
        save();
        context_.check_stop();
      }
      one_step(schedule.at(step_));
      if (now() - saved >= config_.save_seconds && step_ + 1 < config_.steps) {
        ++step_;
        save();
        --step_;
        saved = now();
      }
    }
    outcome_.seconds = now() - begin;
    outcome_.processor_seconds = processor_now() - processor;
    if (outcome_.resumed_at < config_.steps) save();
    return std::move(outcome_);
  }

 private:
  void restore() {
    const auto state = read_train_state(file_, fingerprint_, student_.parameters(), outcome_.note);
    if (!state) return;
    student_.follow_parameters();
    step_ = outcome_.resumed_at = state->step;
    outcome_.skipped = state->skipped;
    broken_ = state->broken;
    objective_.restore(state->objective);
    outcome_.history = history_from(state->history);
  }

  void save() const {
    write_train_state(file_,
                      {step_, outcome_.skipped, broken_, fingerprint_, objective_.state(),
                       to_json(outcome_.history)},
                      student_.parameters());
  }

  void one_step(double rate) {
    const Batch batch = objective_.batch_of(windows_.batch(step_, config_.batch), student_, step_);
    const std::int64_t counted = batch.counted();
    const double scale = counted > 0 ? 1.0 / static_cast<double>(counted) : 0.0;
    TrainedStep done{step_, {}, 0, rate};
    objective_.begin_step(batch, step_, config_.steps);
    const std::int64_t micro = micro_sequences(config_.length);
    for (std::int64_t first = 0; first < config_.batch; first += micro) {
      const std::int64_t size = std::min(micro, config_.batch - first);
      Batch part{batch.ids.narrow(0, first, size),
                 batch.targets.narrow(0, first, size),
                 {batch.windows.begin() + first, batch.windows.begin() + first + size}};
      add(done.means, objective_.add_gradient(student_, part, scale));
    }
    for (ObjectiveTerm& term : done.means) term.sum *= scale;
    done.gradient_norm = adamw_step(student_.parameters(), config_.optimizer(), rate, step_);
    student_.follow_parameters();
    const double mean = done.means.front().sum;
    check_finite(done);
    if (std::isfinite(mean)) objective_.finished_step(step_, config_.steps, mean);
    outcome_.tokens += config_.batch * config_.length;
    report(done);
  }

  static void add(std::vector<ObjectiveTerm>& sums, std::vector<ObjectiveTerm> more) {
    if (sums.empty()) {
      sums = std::move(more);
      return;
    }
    for (std::size_t i = 0; i < sums.size(); ++i) sums[i].sum += more[i].sum;
  }

  void check_finite(const TrainedStep& done) {
    if (std::isfinite(done.gradient_norm)) {
      broken_ = 0;
      return;
    }
    ++outcome_.skipped;
    require<NumericRefusal>(++broken_ < 3, "train", "three steps in a row, up to step ", done.step,
                            ", have a gradient that is not finite; lower learning_rate "
                            "or clip");
  }

  void report(const TrainedStep& done) {
    const std::int64_t every = std::max<std::int64_t>(1, config_.steps / 200);
    if (done.step % every != 0 && done.step + 1 != config_.steps) return;
    outcome_.history.push_back(done);
    std::ostringstream text;
    text << "step " << done.step + 1 << " of " << config_.steps;
    text.precision(4);
    for (const ObjectiveTerm& term : done.means) text << ' ' << term.name << ' ' << term.sum;
    context_.progress(text.str());
  }

  Student& student_;
  Objective& objective_;
  const TrainingWindows& windows_;
  const TrainConfig& config_;
  std::string fingerprint_;
  std::filesystem::path file_;
  const RunContext& context_;
  TrainOutcome outcome_;
  std::int64_t step_ = 0;
  std::int64_t broken_ = 0;
};

}  // namespace

AdamWConfig TrainConfig::optimizer() const {
  AdamWConfig optimizer;
  optimizer.weight_decay = weight_decay;
  optimizer.clip = clip;
  optimizer.epsilon = epsilon;
  optimizer.average = average;
  return optimizer;
}

Schedule TrainConfig::schedule() const {
  return {learning_rate, floor,
          static_cast<std::int64_t>(std::ceil(warmup * static_cast<double>(steps))), steps};
}

std::int64_t micro_sequences(std::int64_t length) {
  return std::max<std::int64_t>(1, kMicroTokens / length);
}

TrainOutcome train(Student& student, Objective& objective, const TrainingWindows& windows,
                   const TrainConfig& config, const std::string& data_id,
                   const std::filesystem::path& folder, const RunContext& context) {
  std::filesystem::create_directories(folder);
  const KeepLargeBlocks kept;
  return Loop(student, objective, windows, config,
              fingerprint_of(config, objective, windows, data_id, context.seed),
              folder / "train.safetensors", context)
      .run();
}

std::vector<ObjectiveTerm> NextToken::add_gradient(Student& student, const Batch& micro,
                                                   double scale) {
  Activations activations = student.forward(micro.ids, recompute_);
  const at::Tensor hidden = activations.normed.detach();
  ResponseTargets targets;
  targets.tokens = micro.targets.flatten().contiguous();
  const ResponseTerm term;
  const ResponseGradient found = response_gradient(
      hidden.flatten(0, 1), student.head(), student.head_gradient(), targets, {&term, 1}, scale);
  student.backward(activations, found.hidden.view(hidden.sizes()));
  return {{"loss", found.losses.front()}};
}

}  // namespace attar
