#include "quantize/passes.h"

namespace attar {

void register_quantize_passes(PassRegistry& registry) {
  registry.add<RtnPass>();
  registry.add<GptqPass>();
  registry.add<AwqPass>();
}

}  // namespace attar
