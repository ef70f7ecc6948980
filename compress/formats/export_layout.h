// What each weight of a model is at the moment of an export, in a plan or for real.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/formats/export.h"
#include "compress/formats/file_source.h"

namespace attar {

// What a folder with a model holds, for io::OutputFolder.
std::vector<std::string> replaceable_models(const ExportOptions& options);

struct WeightState {
  std::string layer;  // "model.layers.3.mlp.down_proj", "model.embed_tokens", "lm_head"
  WeightShape shape;
  std::optional<QuantScheme> scheme;  // empty: plain values, or parts that are merged to such
  at::ScalarType dense_type = at::kHalf;
  bool by_pass = false;  // the grid is a pass's choice and not the source's own
  bool bias = false;
  bool rounds_input = false;  // what the layer reads is rounded (QuantScheme::token_grid)
};

// The states of all weights. Blocks are asked for in ascending order, each once.
struct ModelStates {
  ModelConfig config;
  std::function<std::vector<WeightState>(std::int64_t block)> block;  // by index_of(Role)
  WeightState embedding;
  std::optional<WeightState> head;  // empty when tied
};

// Throws UsageError when `planned` names a layer that the model does not have.
ModelStates planned_states(const ModelSource& source, const PlannedModel& planned);
ModelStates current_states(const Model& model);

// Type of plain values that an empty option stands for: the source's own, float16 where the source
// is quantized.
at::ScalarType source_dense_type(const ModelSource& source);

// Largest |a - b|; a NaN gives NaN. Throws NumericRefusal naming `tensor` when `written` has an
// infinity or NaN where the model's value is finite.
double largest_difference(const at::Tensor& written, const at::Tensor& original,
                          std::string_view tensor, std::string_view type);

// The same of a difference that is known already.
void refuse_if_not_finite(double difference, const at::Tensor& original, std::string_view tensor,
                          std::string_view type);

// Rows that are converted at a time, so that a chunk holds about 1 Mi values.
std::int64_t rows_at_once(std::int64_t columns);

void add(ExportReport& report, TensorExport tensor);
void add(ExportPlan& plan, TensorExport tensor);

}  // namespace attar
