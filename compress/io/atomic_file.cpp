#include "compress/io/atomic_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <random>
#include <vector>

#include "compress/core/errors.h"
#include "compress/io/os_failure.h"

namespace attar::io {
namespace {

constexpr std::string_view kWhere = "file";

constexpr std::string_view kMark = ".tmp-";

// The random number is for processes of other containers on the same disk.
std::filesystem::path temporary_name(const std::filesystem::path& path) {
  static std::atomic<unsigned> counter{0};
  static const unsigned random = std::random_device()();
  std::filesystem::path name = path;
  name += std::string(kMark) + std::to_string(::getpid()) + "-" + std::to_string(random) + "-" +
          std::to_string(counter++);
  return name;
}

// Whether `name` is one that temporary_name() makes: three numbers behind `begin`.
bool is_temporary(std::string_view name, std::string_view begin) {
  if (!name.starts_with(begin)) return false;
  name.remove_prefix(begin.size());
  return name.find_first_not_of("0123456789-") == name.npos &&
         std::count(name.begin(), name.end(), '-') == 2;
}

// Removes what killed processes have left of `path`: nobody holds its lock. Younger ones may be of
// a process that has not locked them yet.
void remove_left(const std::filesystem::path& path) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  const std::string begin = path.filename().string() + std::string(kMark);
  std::error_code failure;
  std::filesystem::directory_iterator walk(folder, failure);
  for (; !failure && walk != std::filesystem::directory_iterator(); walk.increment(failure)) {
    if (!is_temporary(walk->path().filename().string(), begin)) continue;
    const int left = ::open(walk->path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (left < 0) continue;
    struct stat status{};
    const bool old = ::fstat(left, &status) == 0 && S_ISREG(status.st_mode) &&
                     ::time(nullptr) - status.st_mtime > 60;
    if (old && ::flock(left, LOCK_EX | LOCK_NB) == 0) ::unlink(walk->path().c_str());
    ::close(left);
  }
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& path)
    : path_(path), temporary_(temporary_name(path)) {
  std::error_code ignored;
  if (path.filename().empty() || std::filesystem::is_directory(path, ignored)) {
    throw_os_failure(kWhere, "write", path, EISDIR);
  }
  const bool special =
      std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored);
  require<IoError>(!special, kWhere, "'", path.string(),
                   "' is no regular file (a device, a pipe), which would be replaced by one; give "
                   "another name");
  remove_left(path);
  descriptor_ = ::open(temporary_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw_os_failure(kWhere, "create", path, errno);
  (void)::flock(descriptor_, LOCK_EX | LOCK_NB);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      end_(other.end_) {}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
  descriptor_ = -1;
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  write_at(end_, bytes);
  end_ += bytes.size();
}

void AtomicFile::write_at(std::uint64_t offset, std::span<const std::byte> bytes) {
  require<IoError>(descriptor_ >= 0, kWhere, "'", path_.string(), "' is already finished");
  while (!bytes.empty()) {
    const std::size_t piece = std::min<std::size_t>(bytes.size(), std::size_t{1} << 30);
    const ssize_t written = ::pwrite(descriptor_, bytes.data(), piece, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) throw_os_failure(kWhere, "write", path_, written < 0 ? errno : ENOSPC);
    offset += static_cast<std::uint64_t>(written);
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void AtomicFile::reserve(std::uint64_t bytes) {
  require<IoError>(descriptor_ >= 0, kWhere, "'", path_.string(), "' is already finished");
  const auto length = static_cast<off_t>(bytes);
  if (length < 0) throw_os_failure(kWhere, "reserve the space of", path_, EFBIG);
  int failed = length > 0 ? ::fallocate(descriptor_, 0, 0, length) : 0;
  while (failed != 0 && errno == EINTR) failed = ::fallocate(descriptor_, 0, 0, length);
  if (failed != 0) {
    // Not every file system can reserve; there a full disk shows on writing.
    if (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL) {
      throw_os_failure(kWhere, "reserve " + std::to_string(bytes) + " bytes for", path_, errno);
    }
  }
  if (::ftruncate(descriptor_, length) != 0) throw_os_failure(kWhere, "size", path_, errno);
}

void AtomicFile::commit() {
  require<IoError>(descriptor_ >= 0, kWhere, "'", path_.string(), "' is already finished");
  if (::fsync(descriptor_) != 0) throw_os_failure(kWhere, "sync", path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw_os_failure(kWhere, "rename the finished file to", path_, errno);
  }
  ::close(descriptor_);
  descriptor_ = -1;
  sync_folder(kWhere, path_.parent_path());
}

void write_file(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  write_file(path, std::as_bytes(std::span(text)));
}

std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes) {
  const Descriptor file = open_for_reading(kWhere, path);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) throw_os_failure(kWhere, "examine", path, errno);
  const auto size = static_cast<std::uint64_t>(status.st_size);
  require(size <= max_bytes, kWhere, "'", path.string(), "' has ", size,
          " bytes, more than the limit of ", max_bytes, "; is it the right file?");
  std::string text;
  char piece[1 << 16];
  text.reserve(size);
  for (;;) {  // to the end, whatever the size said: files under /proc say 0
    const ssize_t got = ::read(file.get(), piece, sizeof(piece));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_os_failure(kWhere, "read", path, errno);
    if (got == 0) return text;
    text.append(piece, static_cast<std::size_t>(got));
    require(text.size() <= max_bytes, kWhere, "'", path.string(), "' grew beyond ", max_bytes,
            " bytes while it was read");
  }
}

void copy_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  const Descriptor source = open_for_reading(kWhere, from);
  AtomicFile target(to);
  std::vector<std::byte> piece(std::size_t{1} << 20);
  for (;;) {
    const ssize_t got = ::read(source.get(), piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_os_failure(kWhere, "read", from, errno);
    if (got == 0) break;
    target.write(std::span(piece).first(static_cast<std::size_t>(got)));
  }
  target.commit();
}

}  // namespace attar::io
