#include "eval/json_lines.h"

#include <utility>

#include "compress/core/errors.h"
#include "compress/io/json.h"
#include "compress/io/mapped_file.h"

namespace attar::eval {

JsonRow::JsonRow(nlohmann::json object, std::string where)
    : object_(std::move(object)), where_(std::move(where)) {
  require(object_.is_object(), where_, "a row must be a JSON object, got ", object_.type_name());
}

const nlohmann::json& JsonRow::value(const char* key) const {
  const auto found = object_.find(key);
  require(found != object_.end(), where_, "key '", key, "' is missing");
  return *found;
}

std::string JsonRow::text(const char* key) const {
  const nlohmann::json& found = value(key);
  require(found.is_string(), where_, "key '", key, "' must be a string, got ", found.type_name());
  return found.get<std::string>();
}

std::int64_t JsonRow::integer(const char* key) const {
  const nlohmann::json& found = value(key);
  const bool fits = found.is_number_integer() &&
                    (!found.is_number_unsigned() || found.get<std::uint64_t>() <= INT64_MAX);
  require(fits, where_, "key '", key, "' must be an integer, got ", found.type_name());
  return found.get<std::int64_t>();
}

std::vector<std::string> JsonRow::texts(const char* key) const {
  const nlohmann::json& found = value(key);
  require(found.is_array() && !found.empty(), where_, "key '", key,
          "' must be a list of strings that is not empty");
  std::vector<std::string> result;
  for (const nlohmann::json& item : found) {
    require(item.is_string(), where_, "key '", key, "' must hold strings only, got ",
            item.type_name());
    result.push_back(item.get<std::string>());
  }
  return result;
}

std::int64_t JsonRow::index_into(const char* key, std::size_t size) const {
  const std::int64_t index = integer(key);
  require(index >= 0 && index < static_cast<std::int64_t>(size), where_, "key '", key,
          "' must be an index into ", size, " choices, got ", index);
  return index;
}

std::string read_text(const std::filesystem::path& path) {
  const auto file = io::MappedFile::open(path);
  const auto bytes = file->bytes();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<JsonRow> read_json_lines(const std::filesystem::path& path) {
  const std::string text = read_text(path);
  std::vector<JsonRow> rows;
  std::int64_t line = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view content = std::string_view(text).substr(at, end - at);
    at = end + 1;
    ++line;
    if (content.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path.string() + ':' + std::to_string(line);
    rows.emplace_back(io::parse_json(content, where), where);
  }
  require(!rows.empty(), path.string(), "the file holds no rows");
  return rows;
}

}  // namespace attar::eval
