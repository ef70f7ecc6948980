// Data files of the tasks: one JSON object a line, each access with file, line and key in its
// error.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace attar::eval {

// One line of a data file. All accessors throw BadInput that names file, line and key.
class JsonRow {
 public:
  JsonRow(nlohmann::json object, std::string where);

  const std::string& where() const { return where_; }

  std::string text(const char* key) const;
  std::int64_t integer(const char* key) const;
  std::vector<std::string> texts(const char* key) const;

  // texts(key) and the index of the right one; the index lies inside.
  std::int64_t index_into(const char* key, std::size_t size) const;

 private:
  const nlohmann::json& value(const char* key) const;

  nlohmann::json object_;
  std::string where_;  // "data/piqa_val.jsonl:17"
};

// Whole content of a file. Throws IoError.
std::string read_text(const std::filesystem::path& path);

// All rows; empty lines are skipped. Throws IoError or BadInput (also for a file without rows).
std::vector<JsonRow> read_json_lines(const std::filesystem::path& path);

}  // namespace attar::eval
