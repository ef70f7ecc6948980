#include "compress/core/fields.h"

#include <limits>

namespace attar::fields_detail {
namespace {

[[noreturn]] void refuse(std::string_view where, std::string_view key, std::string_view expected,
                         const nlohmann::json& value) {
  std::string given = value.dump();
  if (given.size() > 80) given = given.substr(0, 77) + "...";
  throw UsageError(message(where, key, " must be ", expected, ", got ", given));
}

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

std::string allowed(const OneOf& choice) {
  std::string text;
  for (const std::string& value : choice.values) text += (text.empty() ? "" : " | ") + value;
  return text;
}

void check(const std::string& value, const OneOf& choice, std::string_view where,
           std::string_view key) {
  const bool known =
      std::find(choice.values.begin(), choice.values.end(), value) != choice.values.end();
  require<UsageError>(known, where, key, " must be one of ", allowed(choice), ", got '", value,
                      "'");
}

void read(const nlohmann::json& value, std::string_view where, std::string_view key, bool& out) {
  if (!value.is_boolean()) refuse(where, key, "true or false", value);
  out = value.get<bool>();
}

void read(const nlohmann::json& value, std::string_view where, std::string_view key,
          std::int64_t& out) {
  const bool whole = value.is_number_integer() &&
                     (!value.is_number_unsigned() ||
                      value.get<std::uint64_t>() <=
                          static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()));
  if (!whole) refuse(where, key, "a whole number", value);
  out = value.get<std::int64_t>();
}

void read(const nlohmann::json& value, std::string_view where, std::string_view key, int& out) {
  std::int64_t wide = 0;
  read(value, where, key, wide);
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max()) {
    refuse(where, key, "a number of 32 bits", value);
  }
  out = static_cast<int>(wide);
}

void read(const nlohmann::json& value, std::string_view where, std::string_view key, double& out) {
  if (!value.is_number()) refuse(where, key, "a number", value);
  out = value.get<double>();
  if (!(out - out == 0)) refuse(where, key, "a finite number", value);
}

void read(const nlohmann::json& value, std::string_view where, std::string_view key,
          std::string& out) {
  if (!value.is_string()) refuse(where, key, "a text", value);
  out = value.get<std::string>();
}

void read(const nlohmann::json& value, std::string_view where, std::string_view key,
          std::vector<std::string>& out) {
  out.clear();
  if (value.is_string()) {
    out.push_back(value.get<std::string>());
    return;
  }
  if (!value.is_array()) refuse(where, key, "a text or a list of texts", value);
  for (const nlohmann::json& element : value) {
    if (!element.is_string()) refuse(where, key, "a text or a list of texts", value);
    out.push_back(element.get<std::string>());
  }
}

std::string type_name(const nlohmann::json& value) {
  if (value.is_boolean()) return "bool";
  if (value.is_number_integer()) return "int";
  if (value.is_number()) return "float";
  if (value.is_string()) return "text";
  if (value.is_array()) return "list";
  return value.is_object() ? "mapping" : "any";
}

void refuse_unknown_key(std::string_view where, const std::string& key,
                        const std::vector<std::string>& known) {
  std::string list;
  std::string nearest;
  std::size_t distance = 3;  // farther than two edits is no typing error
  for (const std::string& name : known) {
    list += (list.empty() ? "" : ", ") + name;
    if (const std::size_t d = edit_distance(key, name); d < distance) {
      distance = d;
      nearest = name;
    }
  }
  throw UsageError(message(where, "unknown key '", key, "'",
                           nearest.empty() ? "" : "; did you mean '" + nearest + "'?",
                           "; known keys: ", list));
}

}  // namespace attar::fields_detail
