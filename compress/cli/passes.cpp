#include "compress/cli/command.h"

namespace attar::cli {
namespace {

using nlohmann::ordered_json;

void list(const Common& common) {
  ordered_json found = ordered_json::array();
  std::string text;
  for (const PassRegistry::Entry& entry : engine().registry->entries()) {
    ordered_json fields = ordered_json::array();
    text += entry.name + "\n    " + entry.summary + "\n";
    for (const FieldHelp& field : entry.fields) {
      fields.push_back({{"name", field.name},
                        {"type", field.type},
                        {"default", field.default_value},
                        {"allowed", field.allowed},
                        {"text", field.text}});
      text += "    " + field.name + " = " + field.default_value +
              (field.allowed.empty() ? "" : "  " + field.allowed) + "\n        " + field.text +
              "\n";
    }
    found.push_back({{"name", entry.name}, {"summary", entry.summary}, {"options", fields}});
  }
  common.json() ? print_json(found) : print(text);
}

}  // namespace

void add_passes(CLI::App& app) {
  auto* command = app.add_subcommand("passes", "List the passes with their options");
  const auto common = std::make_shared<Common>();
  add_common(*command, *common);
  command->callback([common] { list(*common); });
}

}  // namespace attar::cli
