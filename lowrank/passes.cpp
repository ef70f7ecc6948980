#include "lowrank/passes.h"

namespace attar {

void register_lowrank_passes(PassRegistry& registry) {
  registry.add<SvdPass>();
  registry.add<SharePass>();
  registry.add<CorrectPass>();
}

}  // namespace attar
