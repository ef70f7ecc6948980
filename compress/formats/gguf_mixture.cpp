#include "compress/formats/gguf_mixture.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "compress/core/errors.h"

namespace attar {
namespace {

using io::GgmlType;

constexpr std::array<GgufMixture, 20> kMixtures{{
    {"Q8_0", 7, GgmlType::q8_0},      {"Q4_0", 2, GgmlType::q4_0},
    {"Q4_1", 3, GgmlType::q4_1},      {"Q5_0", 8, GgmlType::q5_0},
    {"Q5_1", 9, GgmlType::q5_1},      {"Q2_K", 10, GgmlType::q2_k},
    {"Q3_K_S", 11, GgmlType::q3_k},   {"Q3_K_M", 12, GgmlType::q3_k},
    {"Q3_K_L", 13, GgmlType::q3_k},   {"Q4_K_S", 14, GgmlType::q4_k},
    {"Q4_K_M", 15, GgmlType::q4_k},   {"Q5_K_S", 16, GgmlType::q5_k},
    {"Q5_K_M", 17, GgmlType::q5_k},   {"Q6_K", 18, GgmlType::q6_k},
    {"IQ4_NL", 25, GgmlType::iq4_nl}, {"IQ4_XS", 30, GgmlType::iq4_xs},
    {"Q3_K", 11, GgmlType::q3_k},     {"Q4_K", 14, GgmlType::q4_k},
    {"Q5_K", 16, GgmlType::q5_k},     {"Q2_K_S", 21, GgmlType::q2_k},
}};

// The blocks that some mixtures give more bits: the first and the last eighth, and every third
// between.
bool has_more_bits(std::int64_t block, std::int64_t blocks) {
  const std::int64_t eighth = blocks / 8;
  return block < eighth || block >= 7 * blocks / 8 || (block - eighth) % 3 == 2;
}

GgmlType value_type(const GgufMixture& mixture, const ModelConfig& config, std::int64_t block) {
  const BlockWidths widths = config.widths_of(block);
  const bool shared = widths.attends() && widths.heads / widths.kv_heads >= 4;
  const std::string_view name = mixture.name;
  if (name == "Q2_K") return shared ? GgmlType::q4_k : GgmlType::q3_k;
  if (name == "Q2_K_S" && shared) return GgmlType::q4_k;
  if (name == "Q3_K_M") return block < 2 ? GgmlType::q5_k : GgmlType::q4_k;
  if (name == "Q3_K_L") return GgmlType::q5_k;
  if (name == "Q4_K_S" && block < 4) return GgmlType::q5_k;
  if ((name == "Q4_K_M" || name == "Q5_K_M") && has_more_bits(block, config.layers)) {
    return GgmlType::q6_k;
  }
  if ((name == "IQ4_NL" || name == "IQ4_XS") && shared) return GgmlType::q5_k;
  return mixture.base;
}

GgmlType down_type(const GgufMixture& mixture, const ModelConfig& config, std::int64_t block) {
  const std::string_view name = mixture.name;
  const bool first_eighth = block < config.layers / 8;
  if (name == "Q2_K") return GgmlType::q3_k;
  if (name == "Q2_K_S") return first_eighth ? GgmlType::q4_k : mixture.base;
  if (name == "Q3_K_M") return block < config.layers / 16 ? GgmlType::q5_k : GgmlType::q4_k;
  if (name == "Q3_K_L") return GgmlType::q5_k;
  if ((name == "Q4_K_M" || name == "Q5_K_M") && has_more_bits(block, config.layers)) {
    return GgmlType::q6_k;
  }
  if ((name == "Q4_K_S" || name == "IQ4_NL" || name == "IQ4_XS") && first_eighth) {
    return GgmlType::q5_k;
  }
  return mixture.base;
}

GgmlType output_type(const GgufMixture& mixture) {
  if (mixture.name == "Q2_K") return GgmlType::q3_k;
  if (mixture.name == "Q3_K_M") return GgmlType::q4_k;
  if (mixture.name == "Q3_K_L") return GgmlType::q5_k;
  return mixture.base;
}

bool same_name(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::toupper(static_cast<unsigned char>(x)) ==
           std::toupper(static_cast<unsigned char>(y));
  });
}

}  // namespace

const GgufMixture* find_gguf_mixture(std::string_view name) {
  for (const GgufMixture& mixture : kMixtures) {
    if (same_name(mixture.name, name)) return &mixture;
  }
  return nullptr;
}

const GgufMixture& gguf_mixture_of(GgmlType type) {
  const GgufMixture* found = find_gguf_mixture(io::ggml_type_info(type).name);
  require<UsageError>(found != nullptr, "gguf", "no mixture has the base ",
                      io::ggml_type_info(type).name);
  return *found;
}

std::string gguf_mixture_names() {
  std::string names;
  for (const GgufMixture& mixture : kMixtures) {
    names += (names.empty() ? "" : ", ") + std::string(mixture.name);
  }
  return names;
}

GgmlType mixture_type(const GgufMixture& mixture, const ModelConfig& config, std::int64_t block,
                      Role role) {
  if (role == Role::kValue) return value_type(mixture, config, block);
  if (role == Role::kDown) return down_type(mixture, config, block);
  if (role == Role::kOutput) return output_type(mixture);
  return mixture.base;
}

GgmlType mixture_outer_type(const GgufMixture& mixture, const ModelConfig& config, bool head) {
  if (!head && !config.tied_head) return mixture.base;
  const std::uint32_t elements = io::ggml_type_info(mixture.base).elements;
  if (mixture.base == GgmlType::q8_0 || config.hidden % elements != 0) return GgmlType::q8_0;
  return GgmlType::q6_k;
}

GgmlType fallback_type(GgmlType type, std::int64_t columns) {
  if (columns % io::ggml_type_info(type).elements == 0) return type;
  switch (type) {
    case GgmlType::q2_k:
    case GgmlType::q3_k:
      return GgmlType::q4_0;
    case GgmlType::q4_k:
      return GgmlType::q5_0;
    case GgmlType::q5_k:
      return GgmlType::q5_1;
    case GgmlType::q6_k:
      return GgmlType::q8_0;
    case GgmlType::iq4_xs:
      return GgmlType::iq4_nl;
    default:
      return type;
  }
}

}  // namespace attar
