// YAML in, as JSON values, for input that may be hostile.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "compress/io/json.h"

namespace attar::io {

inline constexpr TextLimits kYamlLimits{
    .max_bytes = std::size_t{1} << 20, .max_depth = 64, .max_values = 200'000};

// Parses one YAML document; an empty one is null.
//
// Plain scalars follow the core schema of YAML 1.2: null ~ true false, decimal, 0x and 0o integers,
// decimal floats; everything else, and everything quoted, is a string ("yes", "on" and dates too).
// Keys are strings as written. Aliases are copied and count against max_values.
//
// Throws BadInput with line and column on syntax errors, a key that stands twice in one mapping, a
// key that is no scalar, an unknown tag, .inf and .nan, an integer beyond 64 bits, a second
// document, bytes that are not UTF-8, and texts beyond the limits (nesting of any depth is refused
// without overflowing the stack).
nlohmann::json parse_yaml(std::string_view text, std::string_view where,
                          const TextLimits& limits = kYamlLimits);

// parse_yaml of a file. Throws IoError when the file cannot be read.
nlohmann::json load_yaml(const std::filesystem::path& path, const TextLimits& limits = kYamlLimits);

}  // namespace attar::io
