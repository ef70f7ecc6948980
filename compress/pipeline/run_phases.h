// The parts of a run in their order; run.h puts them together.
#pragma once

#include <filesystem>

#include "compress/pipeline/checkpoint.h"
#include "compress/pipeline/run.h"
#include "compress/pipeline/run_log.h"

namespace attar {

struct RunPhases {
  RunRecord& record;
  const Engine& engine;
  const RunContext& context;
  Progress& progress;
  RunLog& log;
  std::filesystem::path work;

  void start(bool resumed);
  // All passes of the recipe over one stream; finished blocks become durable one by one.
  void run_passes(Model& model, Checkpoint& checkpoint);
  // Texts, gate, tasks and chat. Throws GateNotMet.
  void measure(const Model& model);
  // Throws NumericRefusal for an export that does not compute what the model computes.
  void export_and_verify(const Model& model);
};

}  // namespace attar
