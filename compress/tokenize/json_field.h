// Typed access to the fields of tokenizer.json with messages that name the file and the path.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "compress/core/errors.h"

namespace attar::tokenize {

// An object of a JSON file and the words that name it: "tokenizer.json: decoder.decoders[1]".
struct Node {
  const nlohmann::json& value;
  std::string where;

  Node operator[](std::string_view key) const {
    const auto found = value.is_object() ? value.find(key) : value.end();
    require(value.is_object() && found != value.end(), where, "the field '", key, "' is missing");
    return {*found, where + '.' + std::string(key)};
  }
  Node operator[](std::size_t index) const {
    return {value.at(index), where + '[' + std::to_string(index) + ']'};
  }
  // Present and not null.
  bool has(std::string_view key) const {
    return value.is_object() && value.contains(key) && !value.at(std::string(key)).is_null();
  }
  const Node& array() const {
    require(value.is_array(), where, "must be an array, is ", value.type_name());
    return *this;
  }
  const Node& object() const {
    require(value.is_object(), where, "must be an object, is ", value.type_name());
    return *this;
  }
  const std::string& string() const {
    require(value.is_string(), where, "must be a string, is ", value.type_name());
    return value.get_ref<const std::string&>();
  }
  bool boolean() const {
    require(value.is_boolean(), where, "must be true or false, is ", value.type_name());
    return value.get<bool>();
  }
  // A number that can be a token id or a small count.
  std::int32_t integer() const {
    require(value.is_number_integer() && value >= 0 && value <= 0x7FFFFFFE, where,
            "must be a whole number in [0, 2^31 - 2], is ", value.dump());
    return value.get<std::int32_t>();
  }

  std::string string_or(std::string_view key, std::string_view fallback) const {
    return has(key) ? (*this)[key].string() : std::string(fallback);
  }
  bool boolean_or(std::string_view key, bool fallback) const {
    return has(key) ? (*this)[key].boolean() : fallback;
  }
  std::string type() const { return object()["type"].string(); }
};

[[noreturn]] inline void refuse_type(const Node& node, std::string_view kind) {
  throw BadInput(message(node.where, "attar does not read a ", kind, " of type '", node.type(),
                         "'; convert the tokenizer to byte-level BPE or BPE with byte fallback"));
}

}  // namespace attar::tokenize
