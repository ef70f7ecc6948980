#include <algorithm>
#include <cstring>
#include <set>

#include "compress/core/errors.h"
#include "compress/io/json.h"
#include "compress/io/json_builder.h"
#include "compress/io/safetensors_file.h"

namespace attar::io {
namespace {

// The header with its length and padding; the data follow it.
struct Layout {
  std::string header;
  std::uint64_t data_bytes = 0;
};

// The reference's order: larger alignment first, so that every tensor is aligned by itself.
void sort_for_file(std::vector<TensorPlan>& tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorPlan& a, const TensorPlan& b) {
    return a.type != b.type ? a.type > b.type : a.name < b.name;
  });
}

std::string quote(const std::string& text, const std::string& where) {
  require(find_invalid_utf8(text) == std::string::npos, where,
          "a name or metadata string is not UTF-8");
  return nlohmann::json(text).dump();
}

Layout lay_out(const std::vector<TensorPlan>& tensors,
               const std::map<std::string, std::string>& metadata, const std::string& where) {
  Layout layout;
  std::string& text = layout.header;
  text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) {
      if (text.back() != '{') text += ',';
      text.append(quote(key, where)).append(":").append(quote(value, where));
    }
    text += '}';
  }
  std::set<std::string_view> names;
  for (const TensorPlan& tensor : tensors) {
    require(tensor.name != "__metadata__" && names.insert(tensor.name).second, where, "tensor '",
            tensor.name, "' cannot be written: the name is taken");
    const auto bytes = tensor_bytes(tensor.type, tensor.shape);
    const std::uint64_t begin = layout.data_bytes;
    const bool fits =
        bytes.has_value() && *bytes < std::uint64_t{1} << 62 && begin < std::uint64_t{1} << 62;
    require(fits, where, "tensor '", tensor.name, "' has an invalid shape ",
            nlohmann::json(tensor.shape).dump());
    layout.data_bytes += *bytes;
    if (text.size() > 1) text += ',';
    text.append(quote(tensor.name, where)).append(":{\"dtype\":\"");
    text.append(safetensors_name(tensor.type)).append("\",\"shape\":");
    text.append(nlohmann::json(tensor.shape).dump()).append(",\"data_offsets\":[");
    text.append(std::to_string(begin)).append(",");
    text.append(std::to_string(layout.data_bytes)).append("]}");
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  const std::uint64_t length = text.size();
  char prefix[8];
  std::memcpy(prefix, &length, 8);
  text.insert(0, prefix, 8);
  return layout;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorPlan> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : file_(path), tensors_(std::move(tensors)) {
  sort_for_file(tensors_);
  const Layout layout = lay_out(tensors_, metadata, path.string());
  file_.reserve(layout.header.size() + layout.data_bytes);
  file_.write(layout.header);
  std::uint64_t next = layout.header.size();
  for (const TensorPlan& tensor : tensors_) {
    const std::uint64_t end = next + *tensor_bytes(tensor.type, tensor.shape);
    slots_.emplace(tensor.name, Slot{next, end});
    next = end;
  }
}

void SafetensorsWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = slots_.find(std::string(name));
  require(found != slots_.end(), file_.path().string(), "tensor '", name, "' was not announced");
  Slot& slot = found->second;
  require(bytes.size() <= slot.end - slot.next, file_.path().string(), "tensor '", name, "' gets ",
          bytes.size(), " bytes where ", slot.end - slot.next, " are missing");
  file_.write_at(slot.next, bytes);
  slot.next += bytes.size();
}

void SafetensorsWriter::finish() {
  for (const TensorPlan& tensor : tensors_) {
    const Slot& slot = slots_.at(tensor.name);
    require(slot.next == slot.end, file_.path().string(), "tensor '", tensor.name, "' still lacks ",
            slot.end - slot.next, " bytes");
  }
  file_.commit();
}

std::uint64_t safetensors_file_bytes(std::vector<TensorPlan> tensors,
                                     const std::map<std::string, std::string>& metadata) {
  sort_for_file(tensors);
  const Layout layout = lay_out(tensors, metadata, "safetensors plan");
  return layout.header.size() + layout.data_bytes;
}

}  // namespace attar::io
