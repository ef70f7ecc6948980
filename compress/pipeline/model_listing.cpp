#include "compress/pipeline/model_listing.h"

#include "compress/formats/file_source.h"
#include "compress/pipeline/memory_model.h"

namespace attar {
namespace {

using nlohmann::ordered_json;

ordered_json entry_of(const std::string& layer, const LinearShape& shape,
                      const StoredWeight& stored) {
  return {{"layer", layer},        {"tensor", stored.tensor},
          {"type", stored.type},   {"shape", {shape.out, shape.in}},
          {"bytes", stored.bytes}, {"bias", stored.bias}};
}

}  // namespace

ordered_json config_listing(const ModelConfig& config) {
  ordered_json listing = {{"family", config.family},
                          {"layers", config.layers},
                          {"hidden", config.hidden},
                          {"ffn", config.ffn},
                          {"heads", config.heads},
                          {"kv_heads", config.kv_heads},
                          {"head_dim", config.head_dim},
                          {"vocabulary", config.vocabulary},
                          {"max_positions", config.max_positions},
                          {"activation", to_string(config.activation)},
                          {"rope_theta", config.rope.theta},
                          {"rope_scaling", to_string(config.rope.scaling)},
                          {"tied_head", config.tied_head}};
  const auto by_block = [&](const char* key, std::int64_t BlockWidths::*width) {
    for (const BlockWidths& block : config.block_widths) listing[key].push_back(block.*width);
  };
  by_block("ffn_by_block", &BlockWidths::ffn);
  by_block("heads_by_block", &BlockWidths::heads);
  by_block("kv_heads_by_block", &BlockWidths::kv_heads);
  return listing;
}

ordered_json tensor_listing(const ModelSource& source) {
  const ModelConfig& config = source.config();
  ordered_json tensors = ordered_json::array();
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : roles_of(config.of_block(block))) {
      tensors.push_back(entry_of(layer_name(block, role), shape_of(config, block, role),
                                 stored_weight(source, block, role)));
    }
  }
  const LinearShape vocabulary{config.vocabulary, config.hidden};
  tensors.push_back(entry_of("model.embed_tokens", vocabulary, stored_embedding(source)));
  if (!config.tied_head) tensors.push_back(entry_of("lm_head", vocabulary, stored_head(source)));
  return tensors;
}

std::int64_t parameter_count(const ModelConfig& config) {
  std::int64_t norms = config.hidden;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Norm norm : norms_of(config.of_block(block))) norms += width_of(config, norm);
  }
  const std::int64_t vocabularies = config.vocabulary * config.hidden * (config.tied_head ? 1 : 2);
  return linear_parameters(config) + norms + vocabularies;
}

}  // namespace attar
