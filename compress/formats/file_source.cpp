#include "compress/formats/file_source.h"

#include "compress/formats/export.h"

namespace attar {
namespace {

StoredWeight described(const Weight& weight, std::string name) {
  StoredWeight stored;
  stored.tensor = std::move(name);
  stored.type = kind_of(weight);
  stored.bytes = stored_bytes(weight);
  if (const auto* quantized = std::get_if<QuantizedWeight>(&weight)) {
    stored.scheme = quantized->scheme;
    stored.type = describe(quantized->scheme);
  } else if (const auto* plain = std::get_if<DenseWeight>(&weight)) {
    stored.dense_type = plain->values.scalar_type();
    stored.type = at::toString(stored.dense_type);
  }
  return stored;
}

}  // namespace

StoredWeight stored_weight(const ModelSource& source, std::int64_t block, Role role) {
  if (shape_of(source.config(), block, role).empty()) return {};
  if (const auto* file = dynamic_cast<const FileSource*>(&source)) return file->stored(block, role);
  const Linear linear = source.read_block(block)[role];
  StoredWeight stored = described(linear.weight, layer_name(block, role));
  stored.bias = linear.bias.defined();
  return stored;
}

StoredWeight stored_embedding(const ModelSource& source) {
  if (const auto* file = dynamic_cast<const FileSource*>(&source)) return file->stored_embedding();
  return described(source.read_embedding(), "model.embed_tokens");
}

StoredWeight stored_head(const ModelSource& source) {
  if (const auto* file = dynamic_cast<const FileSource*>(&source)) return file->stored_head();
  return described(source.read_head(), "lm_head");
}

}  // namespace attar
