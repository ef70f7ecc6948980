// JSON in and out, for input that may be hostile.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace attar::io {

// What a text may cost before it is refused.
struct TextLimits {
  std::size_t max_bytes = std::size_t{512} << 20;
  std::size_t max_depth = 64;            // nested arrays and objects
  std::size_t max_values = 100'000'000;  // scalars, arrays and objects together
};

// Parses one JSON document (RFC 8259, no comments, no NaN).
//
//   where  names the source in messages: a path, or "override 'passes.3'"
//
// Throws BadInput with the byte position on syntax errors, bytes that are not UTF-8, numbers out of
// range, a key that stands twice in one object, and texts beyond the limits. Any nesting depth is
// refused without using the stack.
nlohmann::json parse_json(std::string_view text, std::string_view where,
                          const TextLimits& limits = {});

// parse_json of a file. Throws IoError when the file cannot be read.
nlohmann::json load_json(const std::filesystem::path& path, const TextLimits& limits = {});

// Writes `value` and a final newline, indented by two spaces, atomically (see atomic_file.h). Keys
// come sorted (json) or in the order of insertion (ordered_json), so equal values give equal bytes.
// Throws BadInput for strings that are not UTF-8, IoError when the file cannot be written.
void write_json(const std::filesystem::path& path, const nlohmann::json& value);
void write_json(const std::filesystem::path& path, const nlohmann::ordered_json& value);

}  // namespace attar::io
