// What a run is, as hashes: two commands with equal hashes end in equal bytes.
#pragma once

#include <string>

#include "compress/core/pass.h"
#include "compress/pipeline/recipe.h"

namespace attar {

struct RunIdentity {
  // The model with its configuration and tokenizer, passes with their texts and teachers, seed,
  // calibration text, arithmetic, attar's sources.
  std::string weights;
  std::string run;  // that and gate, measurements, exports, with the files they read
};

// Threads and batch are in neither: they change no bit.
RunIdentity identify(const Recipe& recipe, const PassRegistry& registry,
                     const std::string& model_sha256);

std::string attar_version();

// sha256 of the sources that this program was built from.
std::string source_hash();

}  // namespace attar
