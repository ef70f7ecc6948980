// Typed access to the keys of one JSON object, with messages that name file and key.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace attar {

// A key that is absent or null counts as missing.
class JsonKeys {
 public:
  JsonKeys(const nlohmann::json& object, std::string_view where);

  bool has(std::string_view key) const { return find(key) != nullptr; }
  const nlohmann::json* find(std::string_view key) const;

  // Throw BadInput when the key is missing or of another type.
  std::int64_t integer(std::string_view key) const;
  double number(std::string_view key) const;
  std::string string(std::string_view key) const;

  std::int64_t integer_or(std::string_view key, std::int64_t fallback) const;
  double number_or(std::string_view key, double fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;

  // The object below a key; its messages name both.
  JsonKeys below(std::string_view key) const;
  const nlohmann::json& object() const { return object_; }
  const std::string& where() const { return where_; }

 private:
  const nlohmann::json& need(std::string_view key, std::string_view type) const;
  const nlohmann::json& object_;
  std::string where_;
};

}  // namespace attar
