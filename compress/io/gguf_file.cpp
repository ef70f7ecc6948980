#include "compress/io/gguf_file.h"

#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "compress/core/errors.h"
#include "compress/io/gguf_parser.h"

namespace attar::io {
namespace {

std::string where_of(const GgufFile& file, std::string_view key) {
  return file.path().string() + ", key '" + std::string(key) + "'";
}

std::string type_of(const GgufEntry& entry) {
  const auto* array = std::get_if<GgufArray>(&entry.value);
  if (array == nullptr) return std::string(gguf_value_type_name(entry.type));
  return "array of " + std::string(gguf_value_type_name(array->element));
}

// The value as T where it is a number of T's kind (integer or real) that T can hold.
template <class T>
T convert(const GgufValue& value, const std::string& where, const std::string& stored) {
  return std::visit(
      [&](const auto& found) -> T {
        using Found = std::decay_t<decltype(found)>;
        constexpr bool kReal = std::is_floating_point_v<T>;
        if constexpr (std::is_arithmetic_v<Found> && !std::is_same_v<Found, bool> &&
                      std::is_floating_point_v<Found> == kReal) {
          if constexpr (kReal) {
            return static_cast<T>(found);
          } else {
            require(std::in_range<T>(found), where, "the value ", +found, " does not fit ",
                    std::numeric_limits<T>::digits, " bits",
                    std::is_signed_v<T> ? " and a sign" : "");
            return static_cast<T>(found);
          }
        }
        throw BadInput(message(where, "holds ", stored, ", wanted ",
                               kReal ? "a real number" : "a whole number"));
      },
      value);
}

template <class T>
T scalar(const GgufFile& file, const GgufEntry& entry) {
  return convert<T>(entry.value, where_of(file, entry.key), type_of(entry));
}

template <class Stored>
GgufValue element_at(const GgufArray& array, std::uint64_t index) {
  Stored value;
  std::memcpy(&value, array.bytes.data() + index * sizeof(Stored), sizeof(Stored));
  return value;
}

GgufValue element(const GgufArray& array, std::uint64_t index) {
  switch (array.element) {
    case GgufValueType::u8:
      return element_at<std::uint8_t>(array, index);
    case GgufValueType::i8:
      return element_at<std::int8_t>(array, index);
    case GgufValueType::u16:
      return element_at<std::uint16_t>(array, index);
    case GgufValueType::i16:
      return element_at<std::int16_t>(array, index);
    case GgufValueType::u32:
      return element_at<std::uint32_t>(array, index);
    case GgufValueType::i32:
      return element_at<std::int32_t>(array, index);
    case GgufValueType::f32:
      return element_at<float>(array, index);
    case GgufValueType::u64:
      return element_at<std::uint64_t>(array, index);
    case GgufValueType::i64:
      return element_at<std::int64_t>(array, index);
    case GgufValueType::f64:
      return element_at<double>(array, index);
    case GgufValueType::boolean:
      return array.bytes[index] != std::byte{0};
    case GgufValueType::string:
      return array.strings[index];
    case GgufValueType::array:
      break;  // refused on reading
  }
  return false;
}

template <class T>
std::vector<T> numbers(const GgufFile& file, const GgufEntry& entry) {
  const auto* array = std::get_if<GgufArray>(&entry.value);
  const std::string where = where_of(file, entry.key);
  const std::string stored = type_of(entry);
  require(array != nullptr, where, "holds ", stored, ", wanted an array of numbers");
  std::vector<T> values;
  values.reserve(array->count);
  for (std::uint64_t i = 0; i < array->count; ++i) {
    values.push_back(convert<T>(element(*array, i), where, stored));
  }
  return values;
}

}  // namespace

std::string_view gguf_value_type_name(GgufValueType type) {
  constexpr std::string_view kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64"};
  const auto number = static_cast<std::size_t>(type);
  return number < std::size(kNames) ? kNames[number] : "unknown";
}

GgufFile GgufFile::open(const std::filesystem::path& path) {
  return GgufParser::parse(MappedFile::open(path));
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufTensor& GgufFile::tensor(std::string_view name) const {
  const GgufTensor* found = find_tensor(name);
  require(found != nullptr, path().string(), "has no tensor '", name, "' among its ",
          tensors_.size());
  return *found;
}

const GgufEntry* GgufFile::find(std::string_view key) const {
  const auto found = entry_index_.find(key);
  return found == entry_index_.end() ? nullptr : &entries_[found->second];
}

const GgufEntry& GgufFile::need(std::string_view key) const {
  const GgufEntry* found = find(key);
  require(found != nullptr, where_of(*this, key),
          "is missing; convert the model again with a current converter");
  return *found;
}

std::uint32_t GgufFile::u32(std::string_view key) const {
  return scalar<std::uint32_t>(*this, need(key));
}
std::uint64_t GgufFile::u64(std::string_view key) const {
  return scalar<std::uint64_t>(*this, need(key));
}
std::int64_t GgufFile::i64(std::string_view key) const {
  return scalar<std::int64_t>(*this, need(key));
}
float GgufFile::f32(std::string_view key) const { return scalar<float>(*this, need(key)); }

bool GgufFile::boolean(std::string_view key) const {
  const GgufEntry& entry = need(key);
  const bool* value = std::get_if<bool>(&entry.value);
  require(value != nullptr, where_of(*this, key), "holds ", type_of(entry), ", wanted bool");
  return *value;
}

std::string_view GgufFile::string(std::string_view key) const {
  const GgufEntry& entry = need(key);
  const auto* value = std::get_if<std::string_view>(&entry.value);
  require(value != nullptr, where_of(*this, key), "holds ", type_of(entry), ", wanted a string");
  return *value;
}

std::uint32_t GgufFile::u32_or(std::string_view key, std::uint32_t fallback) const {
  return has(key) ? u32(key) : fallback;
}
float GgufFile::f32_or(std::string_view key, float fallback) const {
  return has(key) ? f32(key) : fallback;
}
bool GgufFile::boolean_or(std::string_view key, bool fallback) const {
  return has(key) ? boolean(key) : fallback;
}
std::string_view GgufFile::string_or(std::string_view key, std::string_view fallback) const {
  return has(key) ? string(key) : fallback;
}

std::span<const std::string_view> GgufFile::strings(std::string_view key) const {
  const GgufEntry& entry = need(key);
  const auto* array = std::get_if<GgufArray>(&entry.value);
  require(array != nullptr && array->element == GgufValueType::string, where_of(*this, key),
          "holds ", type_of(entry), ", wanted an array of strings");
  return array->strings;
}

std::vector<std::int32_t> GgufFile::i32s(std::string_view key) const {
  return numbers<std::int32_t>(*this, need(key));
}
std::vector<float> GgufFile::f32s(std::string_view key) const {
  return numbers<float>(*this, need(key));
}

std::vector<std::uint32_t> GgufFile::u32_per_layer(std::string_view key, std::size_t count) const {
  const GgufEntry& entry = need(key);
  const auto* array = std::get_if<GgufArray>(&entry.value);
  if (array == nullptr)
    return std::vector<std::uint32_t>(count, scalar<std::uint32_t>(*this, entry));
  require(array->count == count, where_of(*this, key), "holds ", array->count,
          " numbers for the model's ", count, " layers");
  return numbers<std::uint32_t>(*this, entry);
}

}  // namespace attar::io
