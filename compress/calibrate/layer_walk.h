// What passes do alike on the layers of one block.
#pragma once

#include <chrono>

#include "compress/calibrate/blockwise.h"

namespace attar {

// Puts the outcome of one layer into the block and into its report.
void record_changed(BlockWork& work, Role role, Weight weight, std::string action, double error,
                    double baseline_error, std::chrono::steady_clock::time_point since);

void record_skipped(BlockWork& work, Role role, std::string reason);

// Records an event; a fallback is refused (NumericRefusal) under RunContext::strict.
void record_event(BlockWork& work, const std::string& layer, std::string kind, std::string text,
                  bool fallback);

// Records what a compensating sweep met: inputs that were never active, and one fallback a
// sentence, all of one kind.
void record_sweep(BlockWork& work, const std::string& layer, std::size_t dead_columns,
                  const std::vector<std::string>& fallbacks, const std::string& kind);

// Records tokens that were dropped because they were not finite. NumericRefusal when none is left.
void record_dropped(BlockWork& work, Site site, const linalg::GramStatistics& statistics);

// The largest of the four input widths of a block.
std::int64_t widest_input(const ModelConfig& config);

}  // namespace attar
