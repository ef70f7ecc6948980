// Which tensors a GGUF export holds, in which types.
#pragma once

#include <string>
#include <vector>

#include "compress/families/family.h"
#include "compress/formats/export_layout.h"
#include "compress/formats/gguf_blocks.h"

namespace attar {

struct GgufPart {
  std::string name;  // "blk.3.ffn_down.weight"
  std::string layer;
  io::GgmlType type = io::GgmlType::f32;
  std::vector<std::int64_t> ne;
  bool keep_codes = false;  // else the reference quantizer or plain rounding
  Fit fit = Fit::kExact;    // of kept codes
  bool by_pass = false;     // the codes are a pass's work: never rounded again without being asked
  std::uint64_t bytes() const;
};

struct GgufLayout {
  GgufArchitecture architecture;
  // Embedding; a group of parts a block (norms, then layers with their biases); final norm and
  // head; then rope_freqs.weight, if any, as the last part.
  std::vector<std::vector<GgufPart>> units;
  std::vector<float> rope_factors;
  std::uint32_t file_type = 1;  // general.file_type: of the mixture, else of most linear layers
  std::vector<std::string> notes;
};

// Throws DoesNotFit, naming layer, rule and remedy; UsageError for an unknown type.
GgufLayout gguf_layout(const ModelStates& states, const ExportOptions& options);

}  // namespace attar
