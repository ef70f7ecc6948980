#include "quantize/passes.h"

#include "quantize/autoround_pass.h"
#include "quantize/embedding_pass.h"
#include "quantize/fit_pass.h"
#include "quantize/rotate_pass.h"
#include "quantize/smooth_pass.h"
#include "quantize/tune_pass.h"

namespace attar {

void register_quantize_passes(PassRegistry& registry) {
  registry.add<RtnPass>();
  registry.add<GptqPass>();
  registry.add<AwqPass>();
  registry.add<AutoroundPass>();
  registry.add<EmbeddingPass>();
  registry.add<SmoothPass>();
  registry.add<RotatePass>();
  registry.add<FitPass>();
  registry.add<TunePass>();
}

}  // namespace attar
