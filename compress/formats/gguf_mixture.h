// The stock mixtures of llama.cpp by their names: which block type each tensor of a model gets.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "compress/core/config.h"
#include "compress/families/model_config.h"
#include "compress/io/ggml_type.h"

namespace attar {

// A block type for everything ("Q5_0", "Q4_K", "IQ4_XS", ...) or a mixture of several ("Q4_K_M").
struct GgufMixture {
  std::string_view name;
  std::uint32_t file_type;  // general.file_type
  io::GgmlType base;
};

// nullptr for another name; no regard to case.
const GgufMixture* find_gguf_mixture(std::string_view name);
// The mixture whose base is `type`, for files whose types were chosen layer by layer.
const GgufMixture& gguf_mixture_of(io::GgmlType type);
std::string gguf_mixture_names();  // "Q8_0, Q4_0, ..."

// Types by the mixture, before a fallback.
io::GgmlType mixture_type(const GgufMixture& mixture, const ModelConfig& config, std::int64_t block,
                          Role role);
// Of the embedding (also when it is the head as well), or of a head of its own.
io::GgmlType mixture_outer_type(const GgufMixture& mixture, const ModelConfig& config, bool head);

// `type`, or the type of 32 that llama.cpp takes where blocks of 256 do not divide a row: Q4_0 for
// Q2_K and Q3_K, Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K, IQ4_NL for IQ4_XS.
io::GgmlType fallback_type(io::GgmlType type, std::int64_t columns);

}  // namespace attar
