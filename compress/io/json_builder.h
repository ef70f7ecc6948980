// Builds a JSON value from parser events under limits; shared by the JSON and YAML readers.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "compress/io/json.h"

namespace attar::io {

// Events arrive in document order. Every event gives the reason of a refusal, or an empty string;
// the reader adds the place. Depth is counted here and never on the call stack.
class JsonBuilder {
 public:
  explicit JsonBuilder(const TextLimits& limits) : limits_(limits) {}

  std::string open(nlohmann::json empty_container);
  const nlohmann::json& close();  // the container that ends
  std::string key(std::string name);
  std::string value(nlohmann::json scalar);
  std::string copy(const nlohmann::json& tree);  // all that hangs on it counts

  // True when the next event must be a key (YAML has one kind of event for keys and values).
  bool wants_key() const;

  nlohmann::json take() { return std::move(root_); }

 private:
  std::string put(nlohmann::json value, std::size_t values, std::size_t depth);

  const TextLimits& limits_;
  nlohmann::json root_;
  std::vector<nlohmann::json*> open_;  // outermost first; only the last one grows
  nlohmann::json* slot_ = nullptr;     // waits for the value of the last key
  std::size_t values_ = 0;
};

// Scalars, arrays and objects in a tree, itself included.
std::size_t count_values(const nlohmann::json& tree);

// Byte offset of the first byte that is not UTF-8 (RFC 3629), or npos.
std::size_t find_invalid_utf8(std::string_view text);

}  // namespace attar::io
