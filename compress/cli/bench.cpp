#include "compress/cli/runtime_option.h"
#include "compress/cli/signals.h"
#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/kernels/variants.h"
#include "compress/runtime/speed.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string model, runtime = "quantized";
  SpeedOptions speed;
  std::int64_t kv_bits = 32;
  bool json = false;
};

std::string rounded(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

void bench(const Options& options) {
  use_threads(options.common);
  RunContext context;
  context.stop = &stop_flag();
  const Model model(open_model(options.model));
  const Transformer transformer(
      model, options.runtime == "quantized" ? Arithmetic::kQuantized : Arithmetic::kExact,
      cache_type(options.kv_bits, "--kv-bits"));
  const Speed speed = measure_speed(transformer, options.speed, [&] { context.check_stop(); });
  if (options.json || options.common.json()) {
    return print_json(nlohmann::ordered_json{{"model", options.model},
                                             {"runtime", options.runtime},
                                             {"kv_bits", options.kv_bits},
                                             {"threads", threads()},
                                             {"instructions", kernels::active_isa()},
                                             {"rounds", options.speed.rounds},
                                             {"prompt", options.speed.prompt},
                                             {"tokens", options.speed.tokens},
                                             {"prefill_tokens_per_second", speed.prefill},
                                             {"decode_tokens_per_second", speed.decode},
                                             {"weight_bytes_per_token", speed.token_bytes},
                                             {"bandwidth_bytes_per_second", speed.bandwidth},
                                             {"decode_share_of_bandwidth", speed.decode_share()}});
  }
  const auto megabytes = [](double bytes) { return rounded(bytes / 1e6, 1) + " MB"; };
  print("prefill     " + rounded(speed.prefill, 1) + " tokens/s (" +
        std::to_string(options.speed.prompt) + " at once)\ndecode      " +
        rounded(speed.decode, 1) + " tokens/s, " +
        megabytes(static_cast<double>(speed.token_bytes)) + " of weights each\nbandwidth   " +
        megabytes(speed.bandwidth) +
        "/s (reading as many bytes in turns with the model)\ndecoding reaches " +
        rounded(100 * speed.decode_share(), 1) + " % of it, on " + std::to_string(threads()) +
        " thread(s), " + std::string(kernels::active_isa()) + ", " + options.runtime + "\n");
}

}  // namespace

void add_bench(CLI::App& app) {
  auto* command = app.add_subcommand(
      "bench", "Tokens a second, beside what the machine's memory would allow; medians of rounds");
  const auto options = std::make_shared<Options>();
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--prompt", options->speed.prompt, "Tokens read at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--tokens", options->speed.tokens, "Tokens decoded one after another")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--rounds", options->speed.rounds, "Rounds, after one that warms up")
      ->check(CLI::Range(1, 10000))
      ->capture_default_str();
  command->add_flag("--json", options->json, "The same as -o json");
  add_runtime(*command, options->runtime);
  add_kv_bits(*command, options->kv_bits);
  add_common(*command, options->common);
  command->callback([options] { bench(*options); });
}

}  // namespace attar::cli
