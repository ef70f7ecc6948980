#include <algorithm>
#include <sstream>

#include "compress/cli/command.h"
#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"

namespace attar::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

// Where recipes lie: named by the user, beside an installed program, or in the source tree.
fs::path recipes_folder(const std::string& given) {
  if (!given.empty()) {
    require<IoError>(fs::is_directory(given), "recipes", "there is no folder '", given, "'");
    return given;
  }
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  const fs::path installed = program.parent_path().parent_path() / "share/attar/recipes";
  if (fs::is_directory(installed, ignored)) return installed;
  if (fs::is_directory(ATTAR_RECIPES, ignored)) return ATTAR_RECIPES;
  throw IoError(message("recipes", "found none beside the program; give --folder"));
}

// The comment lines at the head of a recipe.
std::string head_comment(const std::string& text) {
  std::istringstream lines(text);
  std::string line, head;
  while (std::getline(lines, line) && line.starts_with('#')) {
    const std::size_t begin = line.find_first_not_of("# ");
    head += (head.empty() ? "" : "\n") + (begin == line.npos ? "" : line.substr(begin));
  }
  return head;
}

void list(const std::string& folder, const Common& common) {
  ordered_json found = ordered_json::array();
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(recipes_folder(folder))) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  std::string text;
  for (const fs::path& file : files) {
    const std::string head = head_comment(io::read_file(file));
    found.push_back({{"path", file.string()}, {"about", head}});
    text += file.string() + "\n";
    std::istringstream lines(head);
    for (std::string line; std::getline(lines, line);) text += "    " + line + "\n";
  }
  common.json() ? print_json(found) : print(text);
}

}  // namespace

void add_recipes(CLI::App& app) {
  auto* command = app.add_subcommand("recipes", "List the recipes that come with attar");
  const auto common = std::make_shared<Common>();
  const auto folder = std::make_shared<std::string>();
  command->add_option("--folder", *folder, "Where to look");
  add_common(*command, *common);
  command->callback([common, folder] { list(*folder, *common); });
}

}  // namespace attar::cli
