// ModelConfig from and to the two places where files state it: config.json of Hugging Face and the
// metadata of GGUF.
#pragma once

#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "compress/core/config.h"
#include "compress/families/family.h"

namespace attar {

namespace io {
class GgufFile;
}

// Which linear layers carry a bias, by index_of(Role).
using Biases = std::array<bool, kRoles.size()>;

// Reads config.json: rope_theta + rope_scaling and rope_parameters alike, llama3 and linear
// scaling, head_dim or hidden_size / num_attention_heads, the first of several eos ids. Keys that
// do not change what is computed are ignored.
//
// Throws BadInput, naming `where` and the key, for a missing or ill-typed key, and for a
// model_type, hidden_act, rope type, sliding window or other option that attar does not compute,
// saying what it does.
ModelConfig config_from_json(const nlohmann::json& config, std::string_view where);
Biases biases_from_json(const nlohmann::json& config, const Family& family, std::string_view where);

// A config.json of this model for transformers 4 and 5: both forms of the rope keys. `type` is
// "float16", "bfloat16" or "float32". Stored rope factors must be those of a known scaling; see
// recognize_llama3.
nlohmann::ordered_json config_to_json(const ModelConfig& config, const Biases& biases,
                                      std::string_view type);

// Reads the metadata of a GGUF model and its rope_freqs.weight. Whether the head is tied follows
// from the absence of output.weight.
ModelConfig config_from_gguf(const io::GgufFile& file);

// Factors by which llama3 scaling divides the rotary frequencies, [head_dim / 2]; empty for other
// scalings.
std::vector<float> llama3_factors(const ModelConfig& config);

// The same rope with llama3 parameters in place of stored factors where these reproduce every
// factor within 1e-5: the largest factor, low 1, high 4 and a power of two of positions, as in all
// published models. Unchanged when nothing is stored or nothing fits.
Rope recognize_llama3(const ModelConfig& config);

}  // namespace attar
