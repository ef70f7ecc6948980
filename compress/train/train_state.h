// Where a training run stands, in one file: whole or absent, and going on from it gives the bits of
// a run that was never stopped.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/train/adamw.h"

namespace attar {

struct TrainState {
  std::int64_t step = 0;     // steps done
  std::int64_t skipped = 0;  // of these, for a gradient that was not finite
  std::int64_t broken = 0;   // of these, the last ones in a row
  std::string fingerprint;   // of everything that decides the result
  nlohmann::json objective;  // what the loss itself remembers (TAID's schedule)
  nlohmann::json history;    // what reports need: losses so far
};

// safetensors: values, moments and averages of every parameter by name; the rest as metadata.
void write_train_state(const std::filesystem::path& file, const TrainState& state,
                       const std::vector<Parameter>& parameters);

// Fills parameters in place. Nothing when the file is absent, or damaged, or of another
// fingerprint; `why` then says which of the latter two, for the report.
std::optional<TrainState> read_train_state(const std::filesystem::path& file,
                                           const std::string& fingerprint,
                                           std::vector<Parameter>& parameters, std::string& why);

}  // namespace attar
