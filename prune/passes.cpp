#include "prune/passes.h"

#include "prune/depth.h"
#include "prune/vocabulary.h"
#include "prune/width.h"

namespace attar {

void register_prune_passes(PassRegistry& registry) {
  registry.add<WidthPass>();
  registry.add<DepthPass>();
  registry.add<VocabularyPass>();
  registry.add<SparsePass>();
}

}  // namespace attar
