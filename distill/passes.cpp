#include "distill/passes.h"

#include "compress/core/pass.h"
#include "distill/distill_pass.h"
#include "distill/lora_pass.h"
#include "distill/text_pass.h"

namespace attar {

void register_distill_passes(PassRegistry& registry) {
  registry.add<TextPass>();
  registry.add<LoraPass>();
  registry.add<DistillPass>();
}

}  // namespace attar
