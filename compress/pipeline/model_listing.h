// What a model file holds, from its headers alone: `attar inspect` and attar.open say the same.
#pragma once

#include <nlohmann/json.hpp>

#include "compress/core/model.h"

namespace attar {

// Family, sizes, activation, rotary settings. Where blocks differ, ffn, heads and kv_heads are the
// largest, and ffn_by_block, heads_by_block and kv_heads_by_block list them.
nlohmann::ordered_json config_listing(const ModelConfig& config);

// One entry a matrix, blocks in order, then embedding and head: layer, tensor (its name in the
// file), type, shape [O, I], bytes, bias.
nlohmann::ordered_json tensor_listing(const ModelSource& source);

// All weights and norms; a tied head counts once.
std::int64_t parameter_count(const ModelConfig& config);

}  // namespace attar
