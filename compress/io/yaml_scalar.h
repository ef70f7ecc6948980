// Plain scalars of YAML 1.2 (core schema).
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace attar::io {

struct YamlScalar {
  nlohmann::json value;
  std::string_view refusal = {};  // why the text has no value here; empty when it has one
};

// null, bool, integer, float, or else the text itself as a string.
YamlScalar resolve_plain_scalar(std::string_view text);

}  // namespace attar::io
