// Reading GGUF files, versions 2 and 3, little-endian. Writing: gguf_writer.h, included here.
//
//   "GGUF" | u32 version | u64 tensors | u64 entries
//   entries x (string key, u32 type, value)          string = u64 length, bytes
//   tensors x (string name, u32 rank, u64 ne[rank], u32 ggml type, u64 offset)
//   padding to general.alignment (default 32)
//   data; a tensor's offset counts from here and is the sum of the padded sizes before it
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "compress/io/ggml_type.h"
#include "compress/io/gguf_value.h"
#include "compress/io/gguf_writer.h"
#include "compress/io/mapped_file.h"

namespace attar::io {

// One tensor. `ne` runs from the fastest dimension: a linear weight [out, in] has ne {in, out}.
struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::f32;
  std::vector<std::int64_t> ne;
  std::span<const std::byte> bytes;        // blocks as stored, in `file`
  std::shared_ptr<const MappedFile> file;  // keeps name and bytes valid

  // Row-major shape, slowest first: ne reversed.
  std::vector<std::int64_t> shape() const { return {ne.rbegin(), ne.rend()}; }
};

class GgufFile {
 public:
  // Maps the file and reads metadata and tensor infos. Throws IoError when it cannot be read,
  // BadInput (file, key or tensor, byte offset in the message) for: another magic, version or byte
  // order; counts, lengths or arrays that do not fit in the file; unknown value or tensor types;
  // nested arrays; a key or tensor that stands twice; names over 63 bytes, rank over 4, extents
  // that are not positive, overflow or do not fill blocks; a bad general.alignment; offsets out of
  // order; tensors beyond the end.
  static GgufFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const { return file_; }
  std::uint32_t version() const { return version_; }
  std::uint64_t alignment() const { return alignment_; }
  std::uint64_t data_offset() const { return data_offset_; }

  std::span<const GgufEntry> entries() const { return entries_; }  // in the order of the file
  std::span<const GgufTensor> tensors() const { return tensors_; }

  // nullptr when absent. Valid as long as this object.
  const GgufTensor* find_tensor(std::string_view name) const;
  const GgufTensor& tensor(std::string_view name) const;  // BadInput when absent
  const GgufEntry* find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key) != nullptr; }

  // Typed values. Any stored integer type serves where the value fits; f32 and f64 serve each
  // other; a bool only as boolean. Throws BadInput naming the file, the key, and the type found or
  // that the key is missing. Views lie in the mapping.
  std::uint32_t u32(std::string_view key) const;
  std::uint64_t u64(std::string_view key) const;
  std::int64_t i64(std::string_view key) const;
  float f32(std::string_view key) const;
  bool boolean(std::string_view key) const;
  std::string_view string(std::string_view key) const;

  // The same, or `fallback` when the key is missing (a wrong type still throws).
  std::uint32_t u32_or(std::string_view key, std::uint32_t fallback) const;
  float f32_or(std::string_view key, float fallback) const;
  bool boolean_or(std::string_view key, bool fallback) const;
  std::string_view string_or(std::string_view key, std::string_view fallback) const;

  // Arrays; converted like the scalars above. A missing key throws (ask has() first).
  std::span<const std::string_view> strings(std::string_view key) const;
  std::vector<std::int32_t> i32s(std::string_view key) const;
  std::vector<float> f32s(std::string_view key) const;

  // One number for each of `count` layers: the array (whose length must be `count`) or the scalar
  // repeated, as for A.attention.head_count_kv and A.feed_forward_length.
  std::vector<std::uint32_t> u32_per_layer(std::string_view key, std::size_t count) const;

 private:
  friend class GgufParser;
  std::shared_ptr<const MappedFile> file_;
  std::uint32_t version_ = 0;
  std::uint64_t alignment_ = 32;
  std::uint64_t data_offset_ = 0;
  std::vector<GgufEntry> entries_;
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, std::size_t> entry_index_;
  std::map<std::string_view, std::size_t> tensor_index_;

  const GgufEntry& need(std::string_view key) const;
};

}  // namespace attar::io
