// Failures of the operating system, as IoError with path, reason and remedy.
#pragma once

#include <filesystem>
#include <string_view>
#include <utility>

namespace attar::io {

// Throws IoError "[where] cannot <action> '<path>': <reason>; <remedy>" for an errno value.
[[noreturn]] void throw_os_failure(std::string_view where, std::string_view action,
                                   const std::filesystem::path& path, int error);

// A file descriptor, closed at the end of its scope.
class Descriptor {
 public:
  explicit Descriptor(int value = -1) : value_(value) {}
  Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~Descriptor();
  int get() const { return value_; }

 private:
  int value_;
};

// Opens for reading, or throws.
Descriptor open_for_reading(std::string_view where, const std::filesystem::path& path);

// Makes renames and new names in `folder` durable; file systems without that ability are left be.
void sync_folder(std::string_view where, const std::filesystem::path& folder);

}  // namespace attar::io
