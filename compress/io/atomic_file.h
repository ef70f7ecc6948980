// Files that are whole or absent: written under a temporary name, synced, renamed. Whole folders:
// output_folder.h, included here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "compress/io/output_folder.h"

namespace attar::io {

// Writes to "<path>.tmp-<number>-<n>" in the same folder; commit() makes it `path`, replacing what
// was there. Without commit() the temporary is removed on destruction, and what a killed process
// has left by the next file of that path. All failures are IoError with the path, the reason and,
// for a full disk or missing permission, the remedy.
class AtomicFile {
 public:
  // The folder must exist.
  explicit AtomicFile(const std::filesystem::path& path);
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  // Appends after the last write().
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  // Writes at an offset; does not move the end of write().
  void write_at(std::uint64_t offset, std::span<const std::byte> bytes);

  // Reserves disk space for a file of this size and sets its length, so that a full disk shows now;
  // bytes never written read as zero.
  void reserve(std::uint64_t bytes);

  // fsync of file and folder around the rename. Once only.
  void commit();

  const std::filesystem::path& path() const { return path_; }

 private:
  void discard() noexcept;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  std::uint64_t end_ = 0;
};

// AtomicFile with one write.
void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file(const std::filesystem::path& path, std::string_view text);

// A whole file. Throws IoError, and BadInput when it is larger than max_bytes.
std::string read_file(const std::filesystem::path& path,
                      std::uint64_t max_bytes = std::uint64_t{1} << 30);

// Copies byte for byte through an AtomicFile. Call it as io::copy_file: std has one, too.
void copy_file(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace attar::io
