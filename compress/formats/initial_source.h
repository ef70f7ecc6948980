// A model that is to be trained from nothing: a Hugging Face folder with config.json, a tokenizer
// and, in place of weights, initialise.json:
//
//   {"seed": 7, "deviation": 0.02}
//
// Matrices are normal with this deviation, those that write to the residual stream (o, down)
// divided by sqrt(2 layers) (Radford et al. 2019); norms are 1, biases 0. Each value depends on the
// seed and its place alone.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>

#include "compress/formats/huggingface.h"

namespace attar {

inline constexpr std::string_view kInitialiseFile = "initialise.json";

// Throws BadInput for a file that says something else.
std::shared_ptr<const HuggingFaceSource> open_initial(const std::filesystem::path& folder);

}  // namespace attar
