#include "compress/io/hash.h"

#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <mutex>
#include <new>
#include <vector>

#include "compress/core/errors.h"
#include "compress/io/os_failure.h"

namespace attar::io {

struct Sha256::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  State() {
    if (context == nullptr) throw std::bad_alloc();
    require<std::runtime_error>(EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1, "sha256",
                                "libcrypto has no SHA-256");
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() { EVP_MD_CTX_free(context); }
};

Sha256::Sha256() : state_(std::make_unique<State>()) {}
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;
Sha256::~Sha256() = default;

Sha256& Sha256::update(std::span<const std::byte> bytes) {
  require<std::runtime_error>(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1,
                              "sha256", "libcrypto failed to hash ", bytes.size(), " bytes");
  return *this;
}

Digest Sha256::digest() const {
  State copy;  // finishing ends a context, so finish a copy
  Digest result{};
  const bool done =
      EVP_MD_CTX_copy_ex(copy.context, state_->context) == 1 &&
      EVP_DigestFinal_ex(copy.context, reinterpret_cast<unsigned char*>(result.data()), nullptr) ==
          1;
  require<std::runtime_error>(done, "sha256", "libcrypto failed to finish");
  return result;
}

std::string Sha256::hex() const { return io::hex(digest()); }

std::string hex(const Digest& digest) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::byte value : digest) {
    text += kDigits[std::to_integer<unsigned>(value) >> 4];
    text += kDigits[std::to_integer<unsigned>(value) & 15];
  }
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) { return Sha256().update(bytes).hex(); }
std::string sha256_hex(std::string_view text) { return Sha256().update(text).hex(); }

namespace {

// Of files large enough that nobody writes them anew within one tick of the file system's clock.
using FileState = std::array<std::uint64_t, 5>;
constexpr off_t kRemembered = off_t{1} << 26;

FileState state_of(const struct stat& status) {
  const auto nanoseconds = [](const timespec& time) {
    return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
           static_cast<std::uint64_t>(time.tv_nsec);
  };
  return {status.st_dev, status.st_ino, static_cast<std::uint64_t>(status.st_size),
          nanoseconds(status.st_mtim), nanoseconds(status.st_ctim)};
}

std::mutex remembered_mutex;
std::map<FileState, std::string>& remembered() {
  static std::map<FileState, std::string> hashes;
  return hashes;
}

std::string hash_of_file(const Descriptor& file, const std::filesystem::path& path) {
  Sha256 hash;
  std::vector<std::byte> piece(std::size_t{1} << 20);
  for (;;) {
    const ssize_t got = ::read(file.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_os_failure("sha256", "read", path, errno);
    if (got == 0) return hash.hex();
    hash.update(std::span<const std::byte>(piece).first(static_cast<std::size_t>(got)));
  }
}

}  // namespace

std::string sha256_file(const std::filesystem::path& path) {
  const Descriptor file = open_for_reading("sha256", path);
  struct stat before{};
  if (::fstat(file.get(), &before) != 0) throw_os_failure("sha256", "stat", path, errno);
  if (before.st_size < kRemembered) return hash_of_file(file, path);
  const FileState state = state_of(before);
  {
    const std::lock_guard lock(remembered_mutex);
    if (const auto found = remembered().find(state); found != remembered().end()) {
      return found->second;
    }
  }
  std::string hash = hash_of_file(file, path);
  struct stat after{};
  if (::fstat(file.get(), &after) == 0 && state_of(after) == state) {
    const std::lock_guard lock(remembered_mutex);
    remembered()[state] = hash;
  }
  return hash;
}

}  // namespace attar::io
