#include "compress/cli/runtime_option.h"
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

void add_runtime(CLI::App& command, std::string& runtime) {
  command
      .add_option("--runtime", runtime,
                  "dense: float32 throughout; quantized: the codes of the file times activations "
                  "rounded to 8 bits, several times as fast")
      ->check(CLI::IsMember({"dense", "quantized"}))
      ->capture_default_str();
}

const Engine& engine_of(const std::string& runtime) {
  static const Engine quantized{engine().registry, &make_quantized_language_model};
  return runtime == "quantized" ? quantized : engine();
}

}  // namespace attar::cli
