#include "compress/formats/export.h"

#include "compress/cli/command.h"
#include "compress/formats/model_file.h"
#include "compress/pipeline/plan.h"
#include "compress/pipeline/plan_checks.h"

namespace attar::cli {
namespace {

struct Options {
  Common common;
  std::string model, out, format;
  ExportOptions options;
};

void export_command(const Options& given) {
  use_threads(given.common);
  ExportOptions options = given.options;
  options.format = export_format_from(given.format);
  if (options.replace) {
    keep_out_of(given.out, given.model);
    if (!options.importance.empty()) keep_out_of(given.out, options.importance);
  }
  const Model model(open_model(given.model));
  const ExportReport report = export_model(model, given.out, options);
  nlohmann::ordered_json json = {{"path", report.path.string()},
                                 {"format", to_string(options.format)},
                                 {"bytes", report.bytes},
                                 {"max_rounding", report.max_rounding},
                                 {"notes", report.notes}};
  if (given.common.json()) return print_json(json);
  std::string text = report.path.string() + "  " + readable_bytes(report.bytes) + "\n";
  for (const std::string& note : report.notes) text += note + "\n";
  print(text);
}

}  // namespace

void add_export(CLI::App& app) {
  auto* command = app.add_subcommand("export", "Write a model in another format");
  const auto given = std::make_shared<Options>();
  ExportOptions& options = given->options;
  command->add_option("model", given->model, "Hugging Face folder or GGUF file")->required();
  command->add_option("--out", given->out, "Folder, or *.gguf file")->required();
  command->add_option("--format", given->format, "gguf, compressed-tensors, huggingface or peft")
      ->required();
  command->add_option("--type", options.type, "Type of the layers (gguf) or of plain values");
  command->add_option("--embedding", options.embedding_type, "gguf: type of embedding and head");
  command->add_option("--importance", options.importance,
                      "gguf: importance matrix of llama.cpp (.gguf or .dat) to round by");
  command->add_flag("--requantize", options.requantize, "gguf: round what the type cannot hold");
  command->add_flag("--two-bits", options.two_bits, "compressed-tensors: allow 2 bits");
  command->add_flag("--replace", options.replace, "Replace what is there");
  command->add_option("--name", options.name, "gguf: general.name");
  add_common(*command, given->common);
  command->callback([given] { export_command(*given); });
}

}  // namespace attar::cli
