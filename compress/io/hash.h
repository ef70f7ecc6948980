// SHA-256 of bytes and files.
#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace attar::io {

using Digest = std::array<std::byte, 32>;

// Fed piece by piece; how the bytes are cut does not matter.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  ~Sha256();

  Sha256& update(std::span<const std::byte> bytes);
  Sha256& update(std::string_view text) { return update(std::as_bytes(std::span(text))); }

  // Of everything so far; more may follow.
  Digest digest() const;
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// 64 lower-case hexadecimal digits.
std::string hex(const Digest& digest);
std::string sha256_hex(std::span<const std::byte> bytes);
std::string sha256_hex(std::string_view text);

// Reads in pieces; the file may be larger than memory. Throws IoError.
std::string sha256_file(const std::filesystem::path& path);

}  // namespace attar::io
