// A recipe from beginning to end: passes over a shared stream, exports, verification,
// measurements and gate of what was exported, report. Everything is written to OUT.partial-<id>/,
// which becomes OUT when it is complete; the same command finds an interrupted run again and ends
// in the same bytes.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/formats/export.h"
#include "compress/pipeline/measure.h"
#include "compress/pipeline/plan.h"
#include "compress/pipeline/progress.h"
#include "compress/pipeline/recipe.h"
#include "compress/pipeline/verify.h"

namespace attar {

struct RunOptions {
  std::filesystem::path out;
  bool replace = false;  // a finished OUT of another run gives way
  const std::atomic<bool>* stop = nullptr;
  Progress* progress = nullptr;
};

// What is known of a run at its end, and what its files are made of.
struct RunRecord {
  std::string run_id;      // of everything that decides the results
  std::string weights_id;  // of everything that decides the weights
  Recipe recipe;
  nlohmann::json resolved;
  std::string model_sha256;
  std::int64_t model_bytes = 0;
  Plan plan;
  std::vector<std::vector<PassReport>> reports;  // [pass][block]
  double bits_per_weight = 0;                    // of the linear layers, of what is measured
  Measurements measured;
  std::optional<GateVerdict> gate;
  std::vector<ExportReport> exports;
  std::vector<VerifyReport> verified;
  std::vector<std::pair<std::string, double>> phase_seconds;
  std::uint64_t peak_rss_bytes = 0;
  std::int64_t restored_blocks = 0;
};

struct RunResult {
  std::filesystem::path out;
  std::string table;  // Markdown, readable as it is
  nlohmann::ordered_json results;
  bool was_complete = false;  // OUT held this very run already; nothing was done
};

// Throws what make_plan throws before anything is written; NumericRefusal, GateNotMet, IoError and
// Stopped later. A failure leaves nothing behind unless finished blocks lie in the work folder, and
// then the message names it.
RunResult run(const Recipe& recipe, const Engine& engine, const RunOptions& options);

}  // namespace attar
