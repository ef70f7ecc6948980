#include <charconv>

#include "compress/core/errors.h"
#include "compress/io/yaml.h"
#include "compress/pipeline/recipe.h"

namespace attar {
namespace {

using nlohmann::json;

// What a key inside a step means: the options of `- name: {...}`, or the step itself where the
// name stands beside its options.
json& options_of_step(json& step, const std::string& key) {
  if (!step.is_object() || step.contains(key) || step.contains("pass") || step.size() != 1) {
    return step;
  }
  json& inner = step.begin().value();
  if (inner.is_null()) inner = json::object();
  return inner.is_object() ? inner : step;
}

json& descend(json& node, const std::string& key, const std::string& walked,
              const std::string& where) {
  if (node.is_array()) {
    std::size_t index = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), index);
    require<UsageError>(error == std::errc() && end == key.data() + key.size(), where, "'", walked,
                        "' is a list: give the number of an entry (from 0), got '", key, "'");
    require<UsageError>(index < node.size(), where, "'", walked, "' has ", node.size(),
                        " entries (0 to ", node.size() - 1, "), got ", index);
    return node[index];
  }
  if (node.is_null()) node = json::object();
  require<UsageError>(node.is_object(), where, "'", walked, "' is a single value, so '", key,
                      "' cannot stand inside; give ", walked, "=VALUE");
  return node[key];
}

std::vector<std::string> split_keys(std::string_view path, const std::string& where) {
  std::vector<std::string> keys;
  while (true) {
    const std::size_t dot = path.find('.');
    keys.emplace_back(path.substr(0, dot));
    require<UsageError>(!keys.back().empty(), where, "a key is empty; write KEY.KEY=VALUE");
    if (dot == path.npos) return keys;
    path.remove_prefix(dot + 1);
  }
}

// A path given on the command line is one of the working directory; that of an export is one of the
// output folder.
void make_absolute(const std::string& key, json& value, bool of_export) {
  static const std::vector<std::string> kPathKeys = {"model", "text",    "store",     "path",
                                                     "cache", "teacher", "importance"};
  if (value.is_object()) {
    for (const auto& [inner, entry] : value.items()) make_absolute(inner, entry, of_export);
  } else if (value.is_array()) {
    for (json& entry : value) make_absolute(key, entry, of_export);
  }
  if (std::find(kPathKeys.begin(), kPathKeys.end(), key) == kPathKeys.end()) return;
  if ((key == "teacher" && value == "original") || (key == "path" && of_export)) return;
  if (value.is_string() && !value.get_ref<const std::string&>().empty()) {
    value = std::filesystem::absolute(value.get<std::string>()).lexically_normal().string();
  }
}

}  // namespace

void apply_override(json& document, std::string_view assignment) {
  const std::string where = "override '" + std::string(assignment.substr(0, 200)) + "'";
  const std::size_t equals = assignment.find('=');
  require<UsageError>(equals != assignment.npos && equals > 0, where,
                      "write KEY=VALUE, as in passes.0.bits=3 or model=other.gguf");
  const std::vector<std::string> keys = split_keys(assignment.substr(0, equals), where);
  require<UsageError>(keys.size() <= 16, where, "too many keys");
  json value = io::parse_yaml(assignment.substr(equals + 1), where);
  make_absolute(keys.back(), value, keys.front() == "export");

  json* node = &document;
  std::string walked = "the recipe";
  for (std::size_t depth = 0; depth < keys.size(); ++depth) {
    const bool inside_step = depth == 2 && keys[0] != "calibration";
    if (inside_step) node = &options_of_step(*node, keys[depth]);
    node = &descend(*node, keys[depth], walked, where);
    walked = depth == 0 ? keys[0] : walked + "." + keys[depth];
  }
  *node = std::move(value);
}

}  // namespace attar
