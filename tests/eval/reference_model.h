// SmolLM2-135M-Instruct as lm-evaluation-harness saw it.
#pragma once

#include <filesystem>
#include <memory>

#include "compress/runtime/language_model.h"

namespace attar::eval::testing {

// Where `make models` leaves it: the Hugging Face form with scales alone rounded.
inline std::filesystem::path reference_folder() {
  return std::filesystem::path(ATTAR_SOURCE_DIR) / "models" / "smollm2-scales";
}

// The folder on attar's runtime.
std::unique_ptr<LanguageModel> open_reference_model();

}  // namespace attar::eval::testing
