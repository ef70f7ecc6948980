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

void add_kv_bits(CLI::App& command, std::int64_t& kv_bits) {
  command
      .add_option("--kv-bits", kv_bits,
                  "Bits of keys and values: 32 (float32); 8 or 4: codes with a scale and a minimum "
                  "for 32 channels of a token, 9 or 5 bits in all")
      ->check(CLI::IsMember({32, 8, 4}))
      ->capture_default_str();
}

Engine engine_of(const std::string& runtime, std::int64_t kv_bits) {
  Engine chosen = engine();
  chosen.make_language_model = language_model_on(runtime, "--runtime");
  chosen.cache = cache_type(kv_bits, "--kv-bits");
  if (runtime == "quantized") chosen.make_exact = &make_language_model;
  return chosen;
}

}  // namespace attar::cli
