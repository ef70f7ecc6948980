// What this machine has left: disk at a path, memory of this process.
#pragma once

#include <cstdint>
#include <filesystem>

namespace attar::io {

// Bytes that this user may still write where `path` is or would be made (its nearest existing
// parent is asked). Throws IoError.
std::uint64_t free_bytes(const std::filesystem::path& path);

// Resident memory of this process in bytes, now and at its highest (VmRSS, VmHWM); 0 where the
// system does not tell.
std::uint64_t current_rss_bytes();
std::uint64_t peak_rss_bytes();

}  // namespace attar::io
