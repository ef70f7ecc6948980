// Configuration declared once: a struct lists its fields, and recipes, help, manifests and Python
// read the same list.
//
//   struct GptqConfig {
//     int bits = 4;
//     template <class Visit>
//     static void fields(Visit&& visit) {
//       visit("bits", &GptqConfig::bits, Range{2, 8}, "Bits of a code.");
//     }
//   };
//
// Field types: bool, int, std::int64_t, double, std::string, std::vector<std::string>,
// nlohmann::json (checked by whoever reads it). Constraints: Range, OneOf, Any.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/errors.h"

namespace attar {

template <class T>
struct Range {
  T low, high;
};
template <class T>
Range(T, T) -> Range<T>;

struct OneOf {
  std::vector<std::string> values;
};

struct Any {};

// What help and documentation print about one field.
struct FieldHelp {
  std::string name, type, default_value, allowed, text;
};

namespace fields_detail {

template <class T>
std::string allowed(const Range<T>& range) {
  std::ostringstream out;
  out << '[' << range.low << ", " << range.high << ']';
  return out.str();
}
std::string allowed(const OneOf& choice);  // "a | b | c"
inline std::string allowed(const Any&) { return ""; }

// Converts one value or throws UsageError naming the key, what was expected and what was given.
void read(const nlohmann::json& value, std::string_view where, std::string_view key, bool& out);
void read(const nlohmann::json& value, std::string_view where, std::string_view key, int& out);
void read(const nlohmann::json& value, std::string_view where, std::string_view key,
          std::int64_t& out);
void read(const nlohmann::json& value, std::string_view where, std::string_view key, double& out);
void read(const nlohmann::json& value, std::string_view where, std::string_view key,
          std::string& out);
// One string stands for a list of one.
void read(const nlohmann::json& value, std::string_view where, std::string_view key,
          std::vector<std::string>& out);
inline void read(const nlohmann::json& value, std::string_view, std::string_view,
                 nlohmann::json& out) {
  out = value;
}

template <class T>
void check(const T& value, const Range<T>& range, std::string_view where, std::string_view key) {
  require<UsageError>(value >= range.low && value <= range.high, where, key, " must be in ",
                      allowed(range), ", got ", value);
}
void check(const std::string& value, const OneOf& choice, std::string_view where,
           std::string_view key);
template <class T>
void check(const T&, const Any&, std::string_view, std::string_view) {}

std::string type_name(const nlohmann::json& value);
[[noreturn]] void refuse_unknown_key(std::string_view where, const std::string& key,
                                     const std::vector<std::string>& known);

}  // namespace fields_detail

// Reads a recipe's mapping over the defaults. Throws UsageError for an unknown key (naming the
// known ones), a wrong type or a value out of range. null stands for an empty mapping.
template <class Config>
Config read_fields(const nlohmann::json& object, std::string_view where, Config config = {}) {
  if (object.is_null()) return config;
  require<UsageError>(object.is_object(), where, "expected a mapping of options, got ",
                      fields_detail::type_name(object));
  std::vector<std::string> known;
  Config::fields([&](std::string_view name, auto member, const auto& constraint, std::string_view) {
    known.emplace_back(name);
    const auto found = object.find(std::string(name));
    if (found == object.end()) return;
    fields_detail::read(*found, where, name, config.*member);
    fields_detail::check(config.*member, constraint, where, name);
  });
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end()) {
      fields_detail::refuse_unknown_key(where, key, known);
    }
  }
  return config;
}

// Every field with its value: what a manifest keeps.
template <class Config>
nlohmann::json write_fields(const Config& config) {
  nlohmann::json object = nlohmann::json::object();
  Config::fields([&](std::string_view name, auto member, const auto&, std::string_view) {
    object[std::string(name)] = config.*member;
  });
  return object;
}

// Throws UsageError for an option that is set, and does nothing as the others stand; `remedy` says
// what it belongs to.
template <class Config>
void refuse_idle(const Config& config, std::initializer_list<const char*> keys,
                 std::string_view where, std::string_view remedy) {
  const nlohmann::json set = write_fields(config), defaults = write_fields(Config());
  for (const char* key : keys) {
    require<UsageError>(set.at(key) == defaults.at(key), where, key, ": ", set.at(key).dump(),
                        " does nothing here; ", remedy);
  }
}

template <class Config>
std::vector<FieldHelp> describe_fields() {
  const Config defaults;
  std::vector<FieldHelp> described;
  Config::fields(
      [&](std::string_view name, auto member, const auto& constraint, std::string_view text) {
        const nlohmann::json value = defaults.*member;
        described.push_back({std::string(name), fields_detail::type_name(value), value.dump(),
                             fields_detail::allowed(constraint), std::string(text)});
      });
  return described;
}

}  // namespace attar
