#include "compress/io/hdf5_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "compress/core/errors.h"
#include "compress/io/hdf5_store_file.h"

namespace attar::io {
namespace {

herr_t add_name(hid_t, const char* name, const H5L_info_t*, void* names) {
  static_cast<std::vector<std::string>*>(names)->emplace_back(name);
  return 0;
}

herr_t visit_object(hid_t, const char*, const H5O_info_t*, void*) { return 0; }

// Opens the file by itself; every object header is read, and its checksum with it.
bool reads_to_the_end(const std::filesystem::path& path) {
  const Hdf5Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(properties.get(), true, true);
  const Hdf5Handle file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, properties.get()), H5Fclose);
  return file.valid() && H5Ovisit2(file.get(), H5_INDEX_NAME, H5_ITER_NATIVE, visit_object, nullptr,
                                   H5O_INFO_BASIC) >= 0;
}

}  // namespace

Hdf5Store::Hdf5Store(const std::filesystem::path& path, Mode mode)
    : path_(path), file_(std::make_unique<File>(path, mode)) {}
Hdf5Store::Hdf5Store(Hdf5Store&&) noexcept = default;
Hdf5Store& Hdf5Store::operator=(Hdf5Store&&) noexcept = default;
Hdf5Store::~Hdf5Store() = default;

bool Hdf5Store::readable(const std::filesystem::path& path) noexcept {
  try {
    const auto turn = hdf5_turn();
    std::error_code failure;
    if (!std::filesystem::is_regular_file(path, failure)) return false;
    const bool whole = reads_to_the_end(path);
    H5Eclear2(H5E_DEFAULT);
    return whole;
  } catch (...) {
    return false;
  }
}

void Hdf5Store::require_own(const std::filesystem::path& path) {
  constexpr std::string_view kSignature("\x89HDF\r\n\x1a\n", 8);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return;  // not there, or what opens it says why not
  std::array<char, kSignature.size()> begin{};
  const ssize_t read = ::read(descriptor, begin.data(), begin.size());
  // Or zeros: a header that never came to the disk.
  const bool own = read <= 0 || std::string_view(begin.data(), begin.size()) == kSignature ||
                   begin == decltype(begin){};
  const bool free = ::flock(descriptor, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
  ::close(descriptor);
  require(own, path.string(), "is there and no HDF5 file; name another");
  require<IoError>(free, path.string(), "another process uses it; wait, or name another file");
}

bool Hdf5Store::exists(std::string_view name) const {
  const auto turn = hdf5_turn();
  return file_->has(name);
}

std::vector<std::string> Hdf5Store::children(std::string_view group) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle opened = file_->object(group, false);
  std::vector<std::string> names;
  hsize_t position = 0;
  file_->check(
      H5Literate(opened.get(), H5_INDEX_NAME, H5_ITER_INC, &position, add_name, &names) >= 0,
      "list", group);
  std::sort(names.begin(), names.end());
  return names;
}

void Hdf5Store::remove(std::string_view name) {
  const auto turn = hdf5_turn();
  if (!file_->has(name)) return;
  const herr_t done = H5Ldelete(file_->writing(), hdf5_path(name).c_str(), H5P_DEFAULT);
  file_->check(done >= 0, "remove", name);
}

void Hdf5Store::write_group(
    std::string_view group,
    const std::function<void(Hdf5Store& store, const std::string& below)>& fill) {
  require<UsageError>(!group.empty() && !group.ends_with('/'), path_.string(),
                      "a group needs a name, got '", group, "'");
  const std::string below = std::string(group) + ".partial";
  const auto turn = hdf5_turn();
  remove(below);
  try {
    fill(*this, below);
    require<UsageError>(file_->has(below), path_.string(), "nothing was written for '", group, "'");
  } catch (...) {
    remove(below);
    throw;
  }
  remove(group);
  const hid_t file = file_->writing();
  const herr_t moved = H5Lmove(file, hdf5_path(below).c_str(), file, hdf5_path(group).c_str(),
                               H5P_DEFAULT, H5P_DEFAULT);
  file_->check(moved >= 0, "put in place", group);
  file_->settle();
}

void Hdf5Store::flush() {
  const auto turn = hdf5_turn();
  file_->settle();
}

}  // namespace attar::io
