#include "compress/io/os_failure.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "compress/core/errors.h"

namespace attar::io {
namespace {

std::string_view remedy(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
      return "; free some space or write to another disk";
    case EACCES:
    case EPERM:
      return "; check the owner and the permissions, or choose another place";
    case EROFS:
      return "; the file system is read-only, choose another place";
    case ENOENT:
      return "; check the path";
    case ENOTDIR:
      return "; a part of the path is a file and no folder";
    case EMFILE:
    case ENFILE:
      return "; raise the limit of open files (ulimit -n)";
    case ENAMETOOLONG:
      return "; choose a shorter name";
    case EFBIG:
      return "; the file system or a limit (ulimit -f) does not allow files of this size";
    default:
      return "";
  }
}

}  // namespace

void throw_os_failure(std::string_view where, std::string_view action,
                      const std::filesystem::path& path, int error) {
  throw IoError(message(where, "cannot ", action, " '", path.string(),
                        "': ", std::generic_category().message(error), remedy(error)));
}

Descriptor::~Descriptor() {
  if (value_ >= 0) ::close(value_);
}

Descriptor open_for_reading(std::string_view where, const std::filesystem::path& path) {
  // Not blocking: a named pipe, which is refused below, must not hang the program.
  Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) throw_os_failure(where, "open", path, errno);
  struct stat status{};
  if (::fstat(file.get(), &status) != 0) throw_os_failure(where, "examine", path, errno);
  if (S_ISDIR(status.st_mode)) throw_os_failure(where, "read", path, EISDIR);
  require<IoError>(S_ISREG(status.st_mode), where, "'", path.string(),
                   "' is no regular file; name a file on disk");
  return file;
}

void sync_folder(std::string_view where, const std::filesystem::path& folder) {
  const std::filesystem::path target = folder.empty() ? std::filesystem::path(".") : folder;
  const Descriptor opened(::open(target.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (opened.get() < 0) throw_os_failure(where, "open the folder", target, errno);
  if (::fsync(opened.get()) != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS) {
    throw_os_failure(where, "sync the folder", target, errno);
  }
}

}  // namespace attar::io
