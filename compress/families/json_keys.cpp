#include "compress/families/json_keys.h"

#include <limits>

#include "compress/core/errors.h"

namespace attar {

JsonKeys::JsonKeys(const nlohmann::json& object, std::string_view where)
    : object_(object), where_(where) {
  require(object.is_object(), where, "must be a JSON object, got ", object.type_name());
}

const nlohmann::json* JsonKeys::find(std::string_view key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

const nlohmann::json& JsonKeys::need(std::string_view key, std::string_view type) const {
  const nlohmann::json* value = find(key);
  require(value != nullptr, where_, "key '", key, "' is missing; it must be ", type);
  return *value;
}

std::int64_t JsonKeys::integer(std::string_view key) const {
  const nlohmann::json& value = need(key, "an integer");
  constexpr auto kMax = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  const bool fits = value.is_number_integer() &&
                    (!value.is_number_unsigned() || value.get<std::uint64_t>() <= kMax);
  require(fits, where_, "key '", key, "' must be an integer, got ", value.dump().substr(0, 80));
  return value.get<std::int64_t>();
}

double JsonKeys::number(std::string_view key) const {
  const nlohmann::json& value = need(key, "a number");
  require(value.is_number(), where_, "key '", key, "' must be a number, got ",
          value.dump().substr(0, 80));
  return value.get<double>();
}

std::string JsonKeys::string(std::string_view key) const {
  const nlohmann::json& value = need(key, "a string");
  require(value.is_string(), where_, "key '", key, "' must be a string, got ",
          value.dump().substr(0, 80));
  return value.get<std::string>();
}

std::int64_t JsonKeys::integer_or(std::string_view key, std::int64_t fallback) const {
  return has(key) ? integer(key) : fallback;
}

double JsonKeys::number_or(std::string_view key, double fallback) const {
  return has(key) ? number(key) : fallback;
}

bool JsonKeys::boolean_or(std::string_view key, bool fallback) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return fallback;
  require(value->is_boolean(), where_, "key '", key, "' must be true or false, got ",
          value->dump().substr(0, 80));
  return value->get<bool>();
}

JsonKeys JsonKeys::below(std::string_view key) const {
  return JsonKeys(need(key, "an object"), where_ + ": " + std::string(key));
}

}  // namespace attar
