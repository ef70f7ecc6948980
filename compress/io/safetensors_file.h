// safetensors files: reading with all the refusals of the reference, streaming writing.
//
//   0      u64 little-endian: N, bytes of the header
//   8      header: JSON {"name": {"dtype", "shape", "data_offsets": [begin, end]}, ...,
//          "__metadata__": {string: string}}, padded with spaces
//   8 + N  data, to the end of the file; offsets count from here
//
// Non-goals: writing sub-byte types in pieces, changing a file in place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "compress/io/atomic_file.h"
#include "compress/io/element_type.h"
#include "compress/io/mapped_file.h"

namespace attar::io {

// One tensor of a file. `bytes` is row-major, little-endian, possibly not aligned to its type, and
// lies in `file`, which the view keeps mapped.
struct TensorView {
  std::string name;
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
  std::shared_ptr<const MappedFile> file;

  // Offset of the first byte in the file.
  std::uint64_t offset() const {
    return bytes.empty() ? 0 : static_cast<std::uint64_t>(bytes.data() - file->bytes().data());
  }
};

class SafetensorsFile {
 public:
  // Maps the file and reads its header only. Throws IoError when it cannot be read, BadInput (file,
  // tensor and byte offset in the message) for anything that the reference implementation refuses:
  // a header that is cut off, no JSON or not UTF-8, a name that stands twice, unknown dtypes, sizes
  // that overflow or disagree with the offsets, holes, overlaps, trailing bytes; and for more than
  // 1e6 tensors, names over 4096 bytes, rank over 16.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  const std::shared_ptr<const MappedFile>& mapping() const { return file_; }

  // Ascending by offset in the file.
  std::span<const TensorView> tensors() const { return tensors_; }

  // nullptr / BadInput when there is no such tensor. Valid as long as this object.
  const TensorView* find(std::string_view name) const;
  const TensorView& at(std::string_view name) const;

  // __metadata__; empty when absent.
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::shared_ptr<const MappedFile> file_;
  std::vector<TensorView> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

// A tensor that a writer will receive.
struct TensorPlan {
  std::string name;
  ElementType type = ElementType::f32;
  std::vector<std::int64_t> shape;
};

// Writes a safetensors file tensor by tensor; holds none of them. Equal tensors and metadata give
// equal bytes, whatever the order of the calls.
class SafetensorsWriter {
 public:
  // Writes the header to a temporary beside `path` and reserves the disk space. In the file the
  // tensors stand by descending alignment of their type, then by name, as the reference writes
  // them. Throws BadInput for a name that stands twice, "__metadata__" as a name or an invalid
  // shape, IoError when the file cannot be made or does not fit on the disk.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorPlan> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  // The tensors in the order of the file; writing in this order is the fastest.
  std::span<const TensorPlan> tensors() const { return tensors_; }

  // Appends bytes to tensor `name`: the whole tensor, or one piece after the other. Tensors may
  // come in any order. Throws BadInput for an unknown name or more bytes than its shape holds.
  void append(std::string_view name, std::span<const std::byte> bytes);

  // fsync and rename to the final name. Throws BadInput naming the first tensor that is not
  // complete. Without finish() the temporary is removed on destruction.
  void finish();

 private:
  struct Slot {
    std::uint64_t next;  // file offset of the next byte
    std::uint64_t end;
  };
  AtomicFile file_;
  std::vector<TensorPlan> tensors_;
  std::unordered_map<std::string, Slot> slots_;
};

// Bytes of the file that a writer would produce, header included. For plans and reports.
std::uint64_t safetensors_file_bytes(std::vector<TensorPlan> tensors,
                                     const std::map<std::string, std::string>& metadata = {
                                         {"format", "pt"}});

}  // namespace attar::io
