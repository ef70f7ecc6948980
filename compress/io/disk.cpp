#include "compress/io/disk.h"

#include <sys/statvfs.h>

#include <cerrno>
#include <fstream>
#include <string>

#include "compress/io/os_failure.h"

namespace attar::io {
namespace {

// The line "VmHWM:   1234 kB" of /proc/self/status, in bytes.
std::uint64_t status_bytes(std::string_view key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key)) return std::stoull(line.substr(key.size())) * 1024;
  }
  return 0;
}

}  // namespace

std::uint64_t free_bytes(const std::filesystem::path& path) {
  std::error_code failure;
  std::filesystem::path existing = std::filesystem::absolute(path, failure);
  while (!std::filesystem::exists(existing, failure) && existing.has_relative_path()) {
    existing = existing.parent_path();
  }
  struct statvfs status {};
  if (::statvfs(existing.c_str(), &status) != 0) {
    throw_os_failure("disk", "ask for the free space at", existing, errno);
  }
  return static_cast<std::uint64_t>(status.f_bavail) * status.f_frsize;
}

std::uint64_t current_rss_bytes() { return status_bytes("VmRSS:"); }
std::uint64_t peak_rss_bytes() { return status_bytes("VmHWM:"); }

}  // namespace attar::io
