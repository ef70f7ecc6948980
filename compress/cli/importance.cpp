#include "compress/calibrate/importance.h"

#include "compress/cli/command.h"
#include "compress/cli/signals.h"
#include "compress/formats/model_file.h"
#include "compress/io/atomic_file.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string model, out;
  CalibrationConfig calibration;
  std::uint64_t seed = 0;
};

void importance(const Options& options) {
  use_threads(options.common);
  { io::AtomicFile probe(options.out); }  // before the hours
  RunContext context;
  context.stop = &stop_flag();
  const Model model(open_model(options.model));
  const CalibrationTokens tokens =
      read_calibration(options.calibration, *tokenizer_of(model), options.seed);
  io::ImportanceMatrix matrix =
      importance_matrix(model, tokens, options.calibration.sequences_a_forward(), context);
  matrix.texts = options.calibration.text;
  io::write_importance_matrix(options.out, matrix);
  if (options.common.json()) {
    return print_json(nlohmann::ordered_json{{"path", options.out},
                                             {"layers", matrix.means.size()},
                                             {"sequences", matrix.chunks},
                                             {"length", matrix.chunk_size}});
  }
  print(options.out + "  " + std::to_string(matrix.means.size()) + " layers, " +
        std::to_string(matrix.chunks) + " x " + std::to_string(matrix.chunk_size) + " tokens\n");
}

}  // namespace

void add_importance(CLI::App& app) {
  auto* command = app.add_subcommand(
      "importance", "Write an importance matrix of llama.cpp: mean squares of all layers' inputs");
  const auto options = std::make_shared<Options>();
  CalibrationConfig& calibration = options->calibration;
  command->add_option("model", options->model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--text", calibration.text, "Calibration text, UTF-8 or *.jsonl")->required();
  command->add_option("--out", options->out, "File: *.dat for the older form, else GGUF")
      ->required();
  command->add_option("--sequences", calibration.sequences, "Windows of the text")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command->add_option("--length", calibration.length, "Tokens a window")
      ->check(CLI::Range(8, 1 << 17))
      ->capture_default_str();
  command->add_option("--batch", calibration.batch, "Sequences a forward; changes speed alone")
      ->check(CLI::Range(1, 1 << 10))
      ->capture_default_str();
  command->add_option("--seed", options->seed, "Chooses the windows")->capture_default_str();
  add_common(*command, options->common);
  command->callback([options] { importance(*options); });
}

}  // namespace attar::cli
