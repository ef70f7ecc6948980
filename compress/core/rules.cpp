#include "compress/core/rules.h"

#include <fnmatch.h>

#include "compress/core/errors.h"

namespace attar {

LayerPattern::LayerPattern(std::string text) : text_(std::move(text)) {
  require<UsageError>(!text_.empty(), "layers", "a pattern must not be empty; '*' names all");
}

bool LayerPattern::matches(std::int64_t block, Role role) const {
  if (text_ == to_string(role)) return true;
  const auto fits = [&](const std::string& name) {
    return fnmatch(text_.c_str(), name.c_str(), 0) == 0;
  };
  return fits(std::string(short_name(role))) || fits(layer_name(block, role));
}

void require_matches(const std::vector<std::string>& patterns, const ModelConfig& config,
                     std::string_view where) {
  for (const std::string& text : patterns) {
    const LayerPattern pattern(text);
    bool found = false;
    for (std::int64_t block = 0; block < config.layers && !found; ++block) {
      for (const Role role : kRoles) found = found || pattern.matches(block, role);
    }
    require<UsageError>(found, where, "'", text,
                        "' matches no layer of the model; layers are named "
                        "like '",
                        layer_name(0, Role::kDown), "', '", short_name(Role::kDown),
                        "' or by role q, k, v, o, gate, up, down (blocks 0 to ", config.layers - 1,
                        ")");
  }
}

const std::string* first_match(const std::vector<std::string>& patterns, std::int64_t block,
                               Role role) {
  for (const std::string& text : patterns) {
    if (LayerPattern(text).matches(block, role)) return &text;
  }
  return nullptr;
}

}  // namespace attar
