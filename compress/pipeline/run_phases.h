// The parts of a run in their order; run.h puts them together.
#pragma once

#include <chrono>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "compress/calibrate/model_pass.h"
#include "compress/pipeline/checkpoint.h"
#include "compress/pipeline/run.h"
#include "compress/pipeline/run_log.h"

namespace attar {

// Neighbouring block-wise passes over one stream, or one pass over the whole model.
struct PassPhase {
  std::size_t first = 0;                        // index of its first pass in the recipe
  std::vector<const BlockwisePass*> blockwise;  // empty: `whole`
  const ModelPass* whole = nullptr;
  std::shared_ptr<Checkpoint> checkpoint;

  std::string name() const;  // "quantize.awq, quantize.gptq"
};
// `folder`/0, 1, ... hold what the phases finished. `passes` must outlive the phases.
std::vector<PassPhase> pass_phases(const std::vector<std::unique_ptr<Pass>>& passes,
                                   const std::filesystem::path& folder, const std::string& id);

class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  }

 private:
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

struct RunPhases {
  RunRecord& record;
  const Engine& engine;
  const RunContext& context;
  Progress& progress;
  RunLog& log;
  std::filesystem::path work;
  // With `eval_after_every_pass`: what each phase but the last left, for measure().
  std::vector<std::pair<std::string, Model>> stages = {};

  void start(bool resumed);
  // All passes of the recipe, one phase after the other; gives the model that the last one leaves.
  Model run_passes(const Model& start, std::span<const PassPhase> phases);
  // Throws NumericRefusal for an export that does not compute what the model computes.
  void export_and_verify(const Model& model);
  // What a user gets: the first export as it lies there, `model` itself without one.
  Model written(const Model& model) const;
  // Texts, gate, tasks and chat of what is written, and those of the stages; texts and gate also of
  // other exports that round by themselves. `model` has its tokens. Throws GateNotMet.
  void measure(const Model& model, const Model& written);

 private:
  void run_blocks(const Model& input, Model& model, const PassPhase& phase);
  Model exported(std::size_t index) const;
  std::vector<MeasuredText> measure_texts_of(const Model& written, const Model& model,
                                             std::size_t index);
  void judge_texts();
  void measure_stages(const Model& original);
  Model run_whole(const Model& input, const Model& original, const PassPhase& phase);
  void log_report(std::size_t pass, const PassReport& report, bool restored);
};

}  // namespace attar
