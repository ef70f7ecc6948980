// Parses the head of a GGUF file: metadata and tensor infos.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "compress/core/errors.h"
#include "compress/io/gguf_file.h"

namespace attar::io {

// Takes values from the front of a file; every taking is checked against what is left.
class ByteCursor {
 public:
  ByteCursor(std::span<const std::byte> bytes, std::string where)
      : bytes_(bytes), where_(std::move(where)) {}

  std::uint64_t offset() const { return offset_; }
  std::uint64_t left() const { return bytes_.size() - offset_; }
  const std::string& where() const { return where_; }

  // `what` names the thing in the message when the file ends before it does.
  std::span<const std::byte> take(std::uint64_t length, std::string_view what);
  template <class T>
  T number(std::string_view what);
  std::string_view string(std::string_view what, std::uint64_t max_bytes);

  template <class... Parts>
  void check(bool holds, const Parts&... parts) const {
    require(holds, where_, "byte ", offset_, ": ", parts...);
  }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
  std::uint64_t offset_ = 0;
};

class GgufParser {
 public:
  static GgufFile parse(std::shared_ptr<const MappedFile> file);

 private:
  explicit GgufParser(std::shared_ptr<const MappedFile> file);

  void read_prefix();
  void read_entry();
  void read_alignment();
  void read_tensor(std::uint64_t& expected_offset);
  void attach_bytes();
  GgufValue read_value(GgufValueType type, std::string_view key);
  GgufArray read_array(std::string_view key);

  GgufFile result_;
  ByteCursor cursor_;
  std::uint64_t tensor_count_ = 0;
  std::uint64_t entry_count_ = 0;
  std::vector<std::uint64_t> offsets_;  // of the tensors, from the start of the data
};

}  // namespace attar::io
