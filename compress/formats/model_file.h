// Opens whatever holds a model.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "compress/core/model.h"
#include "compress/tokenize/tokenizer.h"

namespace attar {

// A folder with config.json and safetensors (plain or compressed-tensors) or initialise.json
// (initial_source.h), a folder with a LoRA adapter (adapter.h), or a *.gguf file. Reads headers and
// checks every name and shape against the configuration; weights stay on disk.
//
// Throws IoError when nothing is there, BadInput when it is neither, has no weights, or has them in
// a form that attar does not read, saying what to do.
std::shared_ptr<const ModelSource> open_model(const std::filesystem::path& path);

// The tokenizer that belongs to a model: of the folder, or inside the GGUF file. Throws BadInput
// when there is none. With `kept`: what is left of it (compress/tokenize/trim.h).
std::shared_ptr<const Tokenizer> load_model_tokenizer(const std::filesystem::path& model,
                                                      KeptTokens kept = {});
// The tokenizer whose ids are the model's rows: of its source, cut down as the model is.
std::shared_ptr<const Tokenizer> tokenizer_of(const Model& model);
bool has_tokenizer(const std::filesystem::path& model);

// Files of a model folder that an export takes over, byte for byte unless the vocabulary was cut
// down: tokenizer, chat template, generation defaults, licence. Sorted; only those that exist. Of
// an adapter its base's; a GGUF file has none.
std::vector<std::filesystem::path> companion_files(const std::filesystem::path& model);

}  // namespace attar
