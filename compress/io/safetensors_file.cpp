#include "compress/io/safetensors_file.h"

#include <algorithm>
#include <cstring>

#include "compress/core/errors.h"
#include "compress/io/json.h"

namespace attar::io {
namespace {

using nlohmann::json;

constexpr std::uint64_t kMaxHeaderBytes = 100'000'000;
constexpr std::size_t kMaxTensors = 1'000'000;
constexpr std::size_t kMaxNameBytes = 4096;
constexpr std::size_t kMaxRank = 16;
constexpr std::string_view kMetadata = "__metadata__";
constexpr TextLimits kHeaderLimits{
    .max_bytes = kMaxHeaderBytes, .max_depth = 4, .max_values = 30'000'000};

struct Range {
  std::uint64_t begin;
  std::uint64_t end;
};

struct Header {
  json content;
  std::uint64_t data_offset;
};

Header read_header(const MappedFile& file, const std::string& where) {
  const std::span<const std::byte> bytes = file.bytes();
  require(bytes.size() >= 8, where, "is no safetensors file: ", bytes.size(),
          " bytes, at least 8 needed; download it again");
  std::uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  require(length <= kMaxHeaderBytes, where, "byte 0: header of ", length,
          " bytes is over the limit of ", kMaxHeaderBytes, "; is it a safetensors file?");
  require(length <= bytes.size() - 8, where, "byte 0: header of ", length, " bytes in a file of ",
          bytes.size(), "; the file is cut off, download it again");
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  require(text.starts_with('{'), where, "byte 8: the header does not start with '{'");
  json content = parse_json(text, where + ", header at byte 8", kHeaderLimits);
  require(content.is_object(), where, "byte 8: the header is no JSON object");
  return {std::move(content), 8 + length};
}

std::map<std::string, std::string> read_metadata(const json& entry, const std::string& where) {
  std::map<std::string, std::string> metadata;
  require(entry.is_object(), where, kMetadata, " must be an object of strings");
  for (const auto& [key, value] : entry.items()) {
    require(value.is_string(), where, kMetadata, " key '", key, "' must hold a string");
    metadata.emplace(key, value.get<std::string>());
  }
  return metadata;
}

std::int64_t read_extent(const json& value, const std::string& where) {
  const bool natural = value.is_number_unsigned() && value.get<std::uint64_t>() <= std::uint64_t{1}
                                                                                       << 62;
  require(natural, where, "shape must hold whole numbers, got ", value.dump());
  return value.get<std::int64_t>();
}

const json& member(const json& entry, const char* key, const std::string& where) {
  const auto found = entry.find(key);
  require(found != entry.end(), where, "the key '", key, "' is missing");
  return *found;
}

// Reads everything but the bytes; those need all tensors in order.
TensorView read_tensor(const std::string& name, const json& entry, Range& range,
                       const std::string& file_name) {
  const std::string where = file_name + ", tensor '" + name.substr(0, kMaxNameBytes) + "'";
  require(name.size() <= kMaxNameBytes, where, "name of ", name.size(), " bytes, at most ",
          kMaxNameBytes);
  require(entry.is_object(), where, "must be an object of dtype, shape and data_offsets");
  const json& type_name = member(entry, "dtype", where);
  const json& shape = member(entry, "shape", where);
  const json& offsets = member(entry, "data_offsets", where);
  require(type_name.is_string(), where, "dtype must be a string");
  const auto type = element_type_from_safetensors(type_name.get<std::string>());
  require(type.has_value(), where, "unknown dtype ", type_name.dump());
  require(shape.is_array() && shape.size() <= kMaxRank, where, "shape must be a list of at most ",
          kMaxRank, " numbers");
  TensorView tensor{name, *type, {}, {}, nullptr};
  for (const json& extent : shape) tensor.shape.push_back(read_extent(extent, where));
  require(offsets.is_array() && offsets.size() == 2 && offsets[0].is_number_unsigned() &&
              offsets[1].is_number_unsigned(),
          where, "data_offsets must be two whole numbers, got ", offsets.dump());
  range = {offsets[0].get<std::uint64_t>(), offsets[1].get<std::uint64_t>()};
  require(range.begin <= range.end, where, "data_offsets ", offsets.dump(), " run backwards");
  const auto size = tensor_bytes(*type, tensor.shape);
  require(size.has_value(), where, "shape ", shape.dump(), " of ", safetensors_name(*type),
          " overflows or does not fill whole bytes");
  require(*size == range.end - range.begin, where, "shape ", shape.dump(), " of ",
          safetensors_name(*type), " needs ", *size, " bytes, data_offsets hold ",
          range.end - range.begin);
  return tensor;
}

// Gives each tensor its bytes; the tensors must tile the data without hole, overlap or rest.
void attach_bytes(std::vector<TensorView>& tensors, const std::vector<Range>& ranges,
                  const std::shared_ptr<const MappedFile>& file, std::uint64_t data_offset,
                  const std::string& where) {
  const std::uint64_t data_bytes = file->size() - data_offset;
  std::uint64_t expected = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    require(ranges[i].begin == expected, where, "tensor '", tensors[i].name,
            "' begins at data byte ", ranges[i].begin, " (file byte ", data_offset,
            " + that), expected ", expected, ": tensors overlap or leave a hole");
    require(ranges[i].end <= data_bytes, where, "tensor '", tensors[i].name, "' ends at data byte ",
            ranges[i].end, ", the file holds ", data_bytes,
            " bytes of data; it is cut off, download it again");
    expected = ranges[i].end;
    tensors[i].bytes =
        file->bytes().subspan(data_offset + ranges[i].begin, ranges[i].end - ranges[i].begin);
    tensors[i].file = file;
  }
  require(expected == data_bytes, where, "byte ", data_offset + expected, ": ",
          data_bytes - expected, " bytes after the last tensor");
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  const std::string where = path.string();
  SafetensorsFile result;
  result.file_ = MappedFile::open(path);
  const Header header = read_header(*result.file_, where);
  require(header.content.size() <= kMaxTensors, where, "holds more than ", kMaxTensors, " tensors");

  std::vector<std::pair<Range, TensorView>> found;
  for (const auto& [name, entry] : header.content.items()) {
    if (name == kMetadata) {
      result.metadata_ = read_metadata(entry, where);
      continue;
    }
    Range range{};
    TensorView tensor = read_tensor(name, entry, range, where);
    found.emplace_back(range, std::move(tensor));
  }
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first.begin, a.first.end) < std::pair(b.first.begin, b.first.end);
  });
  std::vector<Range> ranges;
  for (auto& [range, tensor] : found) {
    result.index_.emplace(tensor.name, ranges.size());
    ranges.push_back(range);
    result.tensors_.push_back(std::move(tensor));
  }
  attach_bytes(result.tensors_, ranges, result.file_, header.data_offset, where);
  return result;
}

const TensorView* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

const TensorView& SafetensorsFile::at(std::string_view name) const {
  const TensorView* found = find(name);
  require(found != nullptr, path().string(), "has no tensor '", name, "' among its ",
          tensors_.size());
  return *found;
}

}  // namespace attar::io
