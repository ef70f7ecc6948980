// What a run would do, from headers alone: every tensor, who decides about it, bytes, memory, disk
// and time; and every mistake that needs no computing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "compress/calibrate/blockwise.h"
#include "compress/core/model.h"
#include "compress/pipeline/recipe.h"

namespace attar {

struct PlannedStep {
  std::string pass;
  std::string rule;    // the rule that decided
  std::string action;  // "gptq W4 g64 asymmetric", "unchanged"
};

struct PlannedTensor {
  std::string name;  // layer_name(), "model.embed_tokens", "lm_head"
  std::int64_t out = 0;
  std::int64_t in = 0;
  std::string source_type;
  std::int64_t source_bytes = 0;
  std::vector<PlannedStep> steps;  // one a pass
  std::string result_type;         // in memory, after the last pass
  std::int64_t result_bytes = 0;
  bool in_codes = false;  // after the last pass, with a term beside them or not
  bool factored = false;  // two factors, or a low-rank correction beside something else
  std::vector<std::string> export_types;  // one an export: "Q4_1, kept codes"
  std::vector<std::uint64_t> export_bytes;

  bool empty() const { return out == 0 || in == 0; }  // of a block without attention
};

struct PlannedPhase {
  std::string name;
  std::int64_t peak_bytes = 0;  // resident memory of the process
  double seconds = 0;
};

struct PlannedExport {
  std::string path, format;
  std::uint64_t bytes = 0;
  bool rounds = false;  // what no pass has (TensorExport::rounds)
  std::vector<std::string> notes;
};

struct Plan {
  nlohmann::json recipe;  // resolved
  std::string model_format;
  ModelConfig config;  // of the model that the run starts from
  std::vector<PlannedTensor> tensors;
  std::int64_t source_bytes = 0;
  std::int64_t result_bytes = 0;
  double bits_per_weight = 0;  // of the linear layers, after the last pass
  std::vector<PlannedExport> exports;
  std::vector<std::int64_t> measured;  // by entry of `eval`: windows, or documents
  std::vector<PlannedPhase> phases;
  std::int64_t peak_bytes = 0;
  std::uint64_t disk_bytes = 0;  // checkpoints and exports together
  double seconds = 0;
  double gemm_flops = 0;  // measured a second, what the times stand on
};

struct PlanOptions {
  std::optional<std::filesystem::path> out;  // checked for space and permission when given
  int threads = 0;
  bool probe_speed = true;  // half a second of products; otherwise no times
};

// The passes of a recipe, made.
std::vector<std::unique_ptr<Pass>> make_passes(const Recipe& recipe, const PassRegistry& registry);

// Everything that can be found wrong without computing is thrown as the error it is: UsageError (a
// rule that matches nothing), BadInput (model, tokenizer, calibration text too short, task files),
// DoesNotFit (a group that does not divide, an export that cannot hold its grid, a disk too small),
// IoError (files missing, folder not writable).
Plan make_plan(const Recipe& recipe, const PassRegistry& registry, const PlanOptions& options = {});

nlohmann::json to_json(const Plan& plan);
// For people: a table of tensors (equal blocks folded into one line unless `every_tensor`), then
// totals and phases.
std::string to_table(const Plan& plan, bool every_tensor);

// "1.2 GB", "97.4 MB"; decimal units.
std::string readable_bytes(std::uint64_t bytes);
std::string readable_seconds(double seconds);

}  // namespace attar
