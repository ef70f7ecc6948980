#include "compress/io/output_folder.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "compress/core/errors.h"
#include "compress/io/os_failure.h"

namespace attar::io {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kWhere = "output folder";

// "models/out/" and "models/out" are the same folder; the name is needed for its neighbours.
fs::path without_trailing_separator(const fs::path& path) {
  fs::path result = path.lexically_normal();
  if (result.filename().empty()) result = result.parent_path();
  return result;
}

}  // namespace

bool stays_inside(const fs::path& relative) {
  bool inside = !relative.empty() && relative.is_relative() &&
                relative.native().find('\0') == std::string::npos;
  for (const auto& part : relative) inside = inside && part != ".." && part != ".";
  return inside;
}

namespace {

bool is_plain_id(std::string_view id) {
  constexpr std::string_view kAllowed =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  return !id.empty() && id.size() <= 100 && id.find_first_not_of(kAllowed) == id.npos;
}

void check_target(const fs::path& out, const std::vector<std::string>& replaceable) {
  std::error_code failure;
  const fs::file_status status = fs::symlink_status(out, failure);
  if (!fs::exists(status)) return;
  require<UsageError>(fs::is_directory(status), kWhere, "'", out.string(),
                      "' exists and is no folder; choose another name");
  const bool empty = fs::is_empty(out, failure);
  if (failure) throw_os_failure(kWhere, "look into", out, failure.value());
  if (empty) return;
  require<UsageError>(!replaceable.empty(), kWhere, "'", out.string(),
                      "' exists and is not empty; choose another name or allow replacing it");
  std::string names;
  for (const std::string& name : replaceable) {
    if (fs::is_regular_file(out / name, failure)) return;
    names += (names.empty() ? "" : " or ") + name;
  }
  throw UsageError(message(kWhere, "'", out.string(), "' holds no ", names,
                           ", so it is not replaced by one that does; remove it yourself or choose "
                           "another name"));
}

void sync_file(const fs::path& path) {
  const Descriptor file = open_for_reading(kWhere, path);
  if (::fsync(file.get()) != 0) throw_os_failure(kWhere, "sync", path, errno);
}

void sync_tree(const fs::path& folder) {
  std::error_code failure;
  fs::recursive_directory_iterator walk(folder, failure);
  if (failure) throw_os_failure(kWhere, "look into", folder, failure.value());
  for (; walk != fs::recursive_directory_iterator(); walk.increment(failure)) {
    if (failure) throw_os_failure(kWhere, "look into", folder, failure.value());
    const fs::file_status status = walk->symlink_status(failure);
    if (fs::is_directory(status)) sync_folder(kWhere, walk->path());
    if (fs::is_regular_file(status)) sync_file(walk->path());
  }
  if (failure) throw_os_failure(kWhere, "look into", folder, failure.value());
  sync_folder(kWhere, folder);
}

void remove_tree(const fs::path& folder) {
  std::error_code failure;
  fs::remove_all(folder, failure);
  if (failure) throw_os_failure(kWhere, "remove", folder, failure.value());
}

// Renames `from` to `to`; where `to` is a folder with something in it and may be replaced, swaps
// the two in one step and removes the old one.
void put_in_place(const fs::path& from, const fs::path& to,
                  const std::vector<std::string>& replaceable) {
  if (::rename(from.c_str(), to.c_str()) == 0) return;
  if (errno != ENOTEMPTY && errno != EEXIST) throw_os_failure(kWhere, "rename to", to, errno);
  check_target(to, replaceable);  // somebody may have put it there just now
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_EXCHANGE) == 0) {
    return remove_tree(from);
  }
  // File systems that cannot swap: for a moment there is no `to`.
  fs::path old = from;
  old += ".old";
  if (::rename(to.c_str(), old.c_str()) != 0) throw_os_failure(kWhere, "set aside", to, errno);
  if (::rename(from.c_str(), to.c_str()) != 0) {
    const int error = errno;
    (void)::rename(old.c_str(), to.c_str());
    throw_os_failure(kWhere, "rename to", to, error);
  }
  remove_tree(old);
}

}  // namespace

OutputFolder::OutputFolder(const fs::path& out, std::string_view id,
                           std::vector<std::string> replaceable)
    : out_(without_trailing_separator(out)), replaceable_(std::move(replaceable)) {
  require<UsageError>(is_plain_id(id), kWhere, "the id '", id,
                      "' may hold only letters, digits, '.', '_' and '-'");
  require<UsageError>(!out_.empty() && out_.filename() != "." && out_.filename() != "..", kWhere,
                      "'", out.string(), "' does not name a folder of its own; add a name to it");
  check_target(out_, replaceable_);
  work_ = work_of(out_, id);
  std::error_code failure;
  if (work_.has_parent_path()) fs::create_directories(work_.parent_path(), failure);
  if (failure) throw_os_failure(kWhere, "create", work_.parent_path(), failure.value());
  const bool made = fs::create_directory(work_, failure);
  if (failure) throw_os_failure(kWhere, "create", work_, failure.value());
  lock();
  open_ = true;
  resumed_ = !made && !fs::is_empty(work_, failure);
}

fs::path OutputFolder::work_of(const fs::path& out, std::string_view id) {
  fs::path work = without_trailing_separator(out);
  work += ".partial-" + std::string(id);
  return work;
}

void OutputFolder::lock() {
  descriptor_ = ::open(work_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor_ < 0) throw_os_failure(kWhere, "open", work_, errno);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  ::close(descriptor_);  // file systems without locks answer otherwise and are left be
  descriptor_ = -1;
  throw IoError(message(kWhere, "another process works in '", work_.string(),
                        "'; wait for it or choose another output"));
}

OutputFolder::~OutputFolder() {
  if (open_) ::rmdir(work_.c_str());  // succeeds only where nothing was written
  if (descriptor_ >= 0) ::close(descriptor_);
}

void OutputFolder::commit() {
  require<IoError>(open_, kWhere, "'", out_.string(), "' is already finished or discarded");
  check_target(out_, replaceable_);
  sync_tree(work_);
  put_in_place(work_, out_, replaceable_);
  open_ = false;
  work_ = out_;
  sync_folder(kWhere, out_.parent_path());
}

void OutputFolder::discard() {
  if (!open_) return;
  open_ = false;
  remove_tree(work_);
}

}  // namespace attar::io
