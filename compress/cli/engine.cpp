#include "compress/cli/command.h"
#include "compress/runtime/transformer.h"
#include "distill/passes.h"
#include "lowrank/passes.h"
#include "prune/passes.h"
#include "quantize/passes.h"

namespace attar::cli {

const Engine& engine() {
  static const PassRegistry registry = [] {
    PassRegistry all;
    register_distill_passes(all);
    register_prune_passes(all);
    register_lowrank_passes(all);
    register_quantize_passes(all);
    return all;
  }();
  static const Engine engine{&registry, &make_language_model};
  return engine;
}

}  // namespace attar::cli
