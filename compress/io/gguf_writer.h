// Writes a GGUF version 3 file tensor by tensor; holds none of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "compress/io/atomic_file.h"
#include "compress/io/ggml_type.h"
#include "compress/io/gguf_value.h"

namespace attar::io {

// Order of use: set_* and declare in any order, then append, then finish. The same calls give the
// same bytes; entries and tensors stand in the file in the order of set_* and declare.
class GgufWriter {
 public:
  // Nothing is written before the first append (or finish).
  explicit GgufWriter(std::filesystem::path path);

  // Metadata. Throws BadInput for a key that was set before, an empty key or one over 65535 bytes.
  // "general.alignment" must be set as u32, a power of two, multiple of 8.
  void set_u32(std::string_view key, std::uint32_t value);
  void set_i32(std::string_view key, std::int32_t value);
  void set_u64(std::string_view key, std::uint64_t value);
  void set_f32(std::string_view key, float value);
  void set_bool(std::string_view key, bool value);
  void set_string(std::string_view key, std::string_view value);
  void set_strings(std::string_view key, std::span<const std::string> values);
  void set_strings(std::string_view key, std::span<const std::string_view> values);
  void set_u32s(std::string_view key, std::span<const std::uint32_t> values);
  void set_i32s(std::string_view key, std::span<const std::int32_t> values);
  void set_f32s(std::string_view key, std::span<const float> values);

  // An entry of another file, byte for byte.
  void set_entry(const GgufEntry& entry);

  // Announces a tensor; ne from the fastest dimension. Throws BadInput for a name that stands
  // twice or has no bytes or over 63, rank over 4, or extents that do not fill blocks of `type`.
  void declare(std::string_view name, GgmlType type, std::vector<std::int64_t> ne);

  // Appends bytes to a declared tensor: the whole of it, or one piece after the other. Tensors may
  // come in any order. The first call writes the header to a temporary beside the path and
  // reserves the disk space. Throws BadInput for an unknown name or too many bytes, IoError.
  void append(std::string_view name, std::span<const std::byte> bytes);

  // Writes a piece of a declared tensor at an offset within it, each byte once and no tensor by
  // both ways; several threads may at once, after begin(). Throws as append does.
  void write_at(std::string_view name, std::uint64_t offset, std::span<const std::byte> bytes);
  void begin() { seal(); }  // the header, if it is not there yet

  // fsync and rename to the final name. Throws BadInput naming the first incomplete tensor.
  // Without finish() the temporary is removed on destruction.
  void finish();

  // Bytes of the whole file as declared so far. For plans and reports.
  std::uint64_t file_bytes() const;

 private:
  struct Tensor {
    std::string name;
    GgmlType type;
    std::vector<std::int64_t> ne;
    std::uint64_t bytes;
    std::uint64_t offset;   // from the start of the data
    std::uint64_t written;  // bytes received so far
  };

  std::string& entry(std::string_view key, GgufValueType type);
  std::uint64_t place_tensors(std::vector<Tensor>& tensors) const;  // gives the bytes of the data
  std::string header(const std::vector<Tensor>& tensors) const;     // up to the data
  void seal();

  std::filesystem::path path_;
  std::string entries_;  // serialized
  std::uint64_t entry_count_ = 0;
  std::uint64_t alignment_ = 32;
  std::unordered_set<std::string> keys_;
  std::vector<Tensor> tensors_;
  std::unordered_map<std::string, std::size_t> index_;
  std::optional<AtomicFile> file_;  // once sealed
  std::uint64_t data_offset_ = 0;
};

}  // namespace attar::io
