#include "prune/passes.h"

namespace attar {

void register_prune_passes(PassRegistry& registry) { registry.add<SparsePass>(); }

}  // namespace attar
