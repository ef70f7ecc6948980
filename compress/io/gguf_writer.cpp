#include "compress/io/gguf_writer.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <utility>

#include "compress/core/errors.h"

namespace attar::io {
namespace {

constexpr std::size_t kMaxKeyBytes = 65535;
constexpr std::size_t kMaxTensorNameBytes = 63;
constexpr std::size_t kMaxRank = 4;
constexpr std::string_view kAlignment = "general.alignment";

template <class T>
void put(std::string& out, T value) {
  char bytes[sizeof(T)];
  std::memcpy(bytes, &value, sizeof(T));
  out.append(bytes, sizeof(T));
}

void put_string(std::string& out, std::string_view text) {
  put<std::uint64_t>(out, text.size());
  out += text;
}

template <class T>
void put_array(std::string& out, GgufValueType element, std::span<const T> values) {
  put(out, static_cast<std::uint32_t>(element));
  put<std::uint64_t>(out, values.size());
  const auto bytes = std::as_bytes(values);
  out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

template <class Text>
void put_strings(std::string& out, std::span<const Text> values) {
  put(out, static_cast<std::uint32_t>(GgufValueType::string));
  put<std::uint64_t>(out, values.size());
  for (const std::string_view text : values) put_string(out, text);
}

std::uint64_t round_up(std::uint64_t value, std::uint64_t step) {
  return (value + step - 1) / step * step;
}

}  // namespace

GgufWriter::GgufWriter(std::filesystem::path path) : path_(std::move(path)) {}

std::string& GgufWriter::entry(std::string_view key, GgufValueType type) {
  require(!file_.has_value(), path_.string(), "key '", key, "' comes after the first tensor bytes");
  require(!key.empty() && key.size() <= kMaxKeyBytes && key.find('\0') == key.npos, path_.string(),
          "a metadata key must have 1 to ", kMaxKeyBytes, " bytes and no NUL, got ", key.size());
  require(key != kAlignment || type == GgufValueType::u32, path_.string(), kAlignment,
          " must be u32");
  require(keys_.emplace(key).second, path_.string(), "key '", key, "' is set twice");
  ++entry_count_;
  put_string(entries_, key);
  put(entries_, static_cast<std::uint32_t>(type));
  return entries_;
}

void GgufWriter::set_u32(std::string_view key, std::uint32_t value) {
  if (key == kAlignment) {
    require(std::has_single_bit(value) && value >= 8 && value <= 1u << 20, path_.string(),
            kAlignment, " must be a power of two from 8 to 1048576, got ", value);
  }
  put(entry(key, GgufValueType::u32), value);
  if (key == kAlignment) alignment_ = value;
}
void GgufWriter::set_i32(std::string_view key, std::int32_t value) {
  put(entry(key, GgufValueType::i32), value);
}
void GgufWriter::set_u64(std::string_view key, std::uint64_t value) {
  put(entry(key, GgufValueType::u64), value);
}
void GgufWriter::set_f32(std::string_view key, float value) {
  put(entry(key, GgufValueType::f32), value);
}
void GgufWriter::set_bool(std::string_view key, bool value) {
  put(entry(key, GgufValueType::boolean), static_cast<std::uint8_t>(value));
}
void GgufWriter::set_string(std::string_view key, std::string_view value) {
  put_string(entry(key, GgufValueType::string), value);
}
void GgufWriter::set_strings(std::string_view key, std::span<const std::string> values) {
  put_strings(entry(key, GgufValueType::array), values);
}
void GgufWriter::set_strings(std::string_view key, std::span<const std::string_view> values) {
  put_strings(entry(key, GgufValueType::array), values);
}
void GgufWriter::set_u32s(std::string_view key, std::span<const std::uint32_t> values) {
  put_array(entry(key, GgufValueType::array), GgufValueType::u32, values);
}
void GgufWriter::set_i32s(std::string_view key, std::span<const std::int32_t> values) {
  put_array(entry(key, GgufValueType::array), GgufValueType::i32, values);
}
void GgufWriter::set_f32s(std::string_view key, std::span<const float> values) {
  put_array(entry(key, GgufValueType::array), GgufValueType::f32, values);
}

void GgufWriter::set_entry(const GgufEntry& source) {
  if (source.key == kAlignment) return set_u32(kAlignment, std::get<std::uint32_t>(source.value));
  entry(source.key, source.type)
      .append(reinterpret_cast<const char*>(source.raw.data()), source.raw.size());
}

void GgufWriter::declare(std::string_view name, GgmlType type, std::vector<std::int64_t> ne) {
  require(!file_.has_value(), path_.string(), "tensor '", name,
          "' is declared after the first tensor bytes");
  require(!name.empty() && name.size() <= kMaxTensorNameBytes && name.find('\0') == name.npos,
          path_.string(), "tensor name '", name, "' must have 1 to ", kMaxTensorNameBytes,
          " bytes and no NUL");
  require(ne.size() <= kMaxRank, path_.string(), "tensor '", name, "' has rank ", ne.size(),
          ", at most ", kMaxRank);
  const auto bytes = ggml_tensor_bytes(type, ne);
  const GgmlTypeInfo& info = ggml_type_info(type);
  require(bytes.has_value() && *bytes < std::uint64_t{1} << 50, path_.string(), "tensor '", name,
          "' of type ", info.name, " needs positive extents with ne[0] a multiple of ",
          info.elements, ", got ne[0]=", ne.empty() ? 1 : ne[0]);
  require(index_.emplace(name, tensors_.size()).second, path_.string(), "tensor '", name,
          "' is declared twice");
  tensors_.push_back({std::string(name), type, std::move(ne), *bytes, 0, 0});
}

// Offsets follow from the sizes and the alignment, which may be set after tensors are declared.
std::uint64_t GgufWriter::place_tensors(std::vector<Tensor>& tensors) const {
  std::uint64_t offset = 0;
  for (Tensor& tensor : tensors) {
    tensor.offset = offset;
    offset = round_up(offset + tensor.bytes, alignment_);
  }
  return offset;
}

std::string GgufWriter::header(const std::vector<Tensor>& tensors) const {
  std::string out = "GGUF";
  put<std::uint32_t>(out, 3);
  put<std::uint64_t>(out, tensors.size());
  put<std::uint64_t>(out, entry_count_);
  out += entries_;
  for (const Tensor& tensor : tensors) {
    put_string(out, tensor.name);
    put(out, static_cast<std::uint32_t>(tensor.ne.size()));
    for (const std::int64_t extent : tensor.ne) put(out, static_cast<std::uint64_t>(extent));
    put(out, static_cast<std::uint32_t>(tensor.type));
    put(out, tensor.offset);
  }
  out.resize(round_up(out.size(), alignment_), '\0');
  return out;
}

void GgufWriter::seal() {
  if (file_.has_value()) return;
  const std::uint64_t data_bytes = place_tensors(tensors_);
  const std::string head = header(tensors_);
  AtomicFile file(path_);
  file.reserve(head.size() + data_bytes);  // padding reads as zero
  file.write(head);
  data_offset_ = head.size();
  file_.emplace(std::move(file));
}

void GgufWriter::append(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = index_.find(std::string(name));
  require(found != index_.end(), path_.string(), "tensor '", name, "' was not declared");
  seal();
  Tensor& tensor = tensors_[found->second];
  require(bytes.size() <= tensor.bytes - tensor.written, path_.string(), "tensor '", name,
          "' gets ", bytes.size(), " bytes where ", tensor.bytes - tensor.written, " are missing");
  file_->write_at(data_offset_ + tensor.offset + tensor.written, bytes);
  tensor.written += bytes.size();
}

void GgufWriter::write_at(std::string_view name, std::uint64_t offset,
                          std::span<const std::byte> bytes) {
  const auto found = index_.find(std::string(name));
  require(found != index_.end(), path_.string(), "tensor '", name, "' was not declared");
  require(file_.has_value(), path_.string(), "tensor '", name, "' is written before begin()");
  Tensor& tensor = tensors_[found->second];
  require(offset <= tensor.bytes && bytes.size() <= tensor.bytes - offset, path_.string(),
          "tensor '", name, "' gets ", bytes.size(), " bytes at ", offset, " and has ",
          tensor.bytes);
  file_->write_at(data_offset_ + tensor.offset + offset, bytes);
  std::atomic_ref(tensor.written) += bytes.size();
}

void GgufWriter::finish() {
  seal();
  for (const Tensor& tensor : tensors_) {
    require(tensor.written == tensor.bytes, path_.string(), "tensor '", tensor.name,
            "' still lacks ", tensor.bytes - tensor.written, " bytes");
  }
  file_->commit();
}

std::uint64_t GgufWriter::file_bytes() const {
  std::vector<Tensor> tensors = tensors_;
  const std::uint64_t data_bytes = place_tensors(tensors);
  return header(tensors).size() + data_bytes;
}

}  // namespace attar::io
