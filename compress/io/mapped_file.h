// A file mapped into memory, read-only, shared by everything that views its bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace attar::io {

// Keep the shared_ptr as long as any span of bytes() is in use. The file must not be truncated
// meanwhile (attar replaces files by rename and never writes in place).
class MappedFile {
 public:
  // Throws IoError with the reason of the operating system when the file cannot be opened, is no
  // regular file, or cannot be mapped. An empty file gives an empty span.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::uint64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }

  // Drops the pages that hold these bytes from resident memory; the bytes stay valid and are read
  // from disk again when touched. Ranges beyond the file are clipped. Never fails.
  void done_with(std::uint64_t offset, std::uint64_t length) const;
  void done_with(std::span<const std::byte> part) const;  // a part of bytes()

  // Asks the kernel to start reading these bytes. Never fails.
  void will_need(std::uint64_t offset, std::uint64_t length) const;
  void will_need(std::span<const std::byte> part) const;

 private:
  MappedFile(std::filesystem::path path, const std::byte* data, std::size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::filesystem::path path_;
  const std::byte* data_;
  std::size_t size_;
};

}  // namespace attar::io
