#include "compress/io/hdf5_store_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "compress/core/errors.h"
#include "compress/io/os_failure.h"

namespace attar::io {
namespace {

// The file format of HDF5 1.10: checksums on metadata, and the mark of an open writer.
Hdf5Handle access_properties() {
  Hdf5Handle properties(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(properties.get(), H5F_LIBVER_V110, H5F_LIBVER_V110);
  H5Pset_fclose_degree(properties.get(), H5F_CLOSE_STRONG);
  H5Pset_file_locking(properties.get(), true, true);  // best effort where locks do not exist
  return properties;
}

}  // namespace

std::unique_lock<std::recursive_mutex> hdf5_turn() {
  static std::recursive_mutex mutex;
  silence_hdf5();
  return std::unique_lock(mutex);
}

std::string hdf5_path(std::string_view name) {
  return name.starts_with('/') ? std::string(name) : "/" + std::string(name);
}

Hdf5Store::File::File(const std::filesystem::path& path, Mode mode)
    : path_(path), name_(path.string()), mode_(mode) {
  const auto turn = hdf5_turn();
  std::error_code failure;
  const bool present = std::filesystem::exists(path, failure);
  if (mode == Mode::read || (mode == Mode::update && present)) {
    if (!present) throw_os_failure("store", "open", path, ENOENT);
    open(H5F_ACC_RDONLY);
    return;
  }
  const Hdf5Handle properties = access_properties();
  handle_ =
      Hdf5Handle(H5Fcreate(name_.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, properties.get()), H5Fclose);
  check(handle_.valid(), "create", "the store");
  writing_ = true;
}

Hdf5Store::File::~File() {
  const auto turn = hdf5_turn();
  close();
}

void Hdf5Store::File::open(unsigned flags) {
  const Hdf5Handle properties = access_properties();
  handle_ = Hdf5Handle(H5Fopen(name_.c_str(), flags, properties.get()), H5Fclose);
  check(handle_.valid(), "open", "the store");
  writing_ = flags == H5F_ACC_RDWR;
}

bool Hdf5Store::File::close() {
  const bool closed = handle_.close();
  if (!closed) H5Eclear2(H5E_DEFAULT);
  writing_ = false;
  return closed;
}

hid_t Hdf5Store::File::reading() {
  if (!handle_.valid()) open(H5F_ACC_RDONLY);
  return handle_.get();
}

hid_t Hdf5Store::File::writing() {
  require<UsageError>(mode_ != Mode::read, name_, "the store is open for reading only");
  if (!writing_) {
    close();
    open(H5F_ACC_RDWR);
  }
  return handle_.get();
}

void Hdf5Store::File::settle() {
  if (!writing_) return;
  check(H5Fflush(handle_.get(), H5F_SCOPE_GLOBAL) >= 0, "write", "the store");
  writing_ = false;
  check(handle_.close(), "close", "the store");
  const Descriptor file = open_for_reading("store", path_);
  if (::fsync(file.get()) != 0) throw_os_failure("store", "sync", path_, errno);
}

bool Hdf5Store::File::has(std::string_view object) {
  const std::string path = hdf5_path(object);
  const hid_t file = reading();
  for (std::size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (part != "/" && H5Lexists(file, part.c_str(), H5P_DEFAULT) <= 0) {
      H5Eclear2(H5E_DEFAULT);
      return false;
    }
    if (end == path.npos) return true;
  }
}

Hdf5Handle Hdf5Store::File::object(std::string_view object, bool for_writing) {
  require(has(object), name_, "holds no '", object, "'");
  const hid_t file = for_writing ? writing() : reading();
  Hdf5Handle opened(H5Oopen(file, hdf5_path(object).c_str(), H5P_DEFAULT), H5Oclose);
  check(opened.valid(), "open", object);
  return opened;
}

Hdf5Handle Hdf5Store::File::dataset(std::string_view object, bool for_writing) {
  require(has(object), name_, "holds no '", object, "'");
  const hid_t file = for_writing ? writing() : reading();
  Hdf5Handle opened(H5Dopen2(file, hdf5_path(object).c_str(), H5P_DEFAULT), H5Dclose);
  check(opened.valid(), "open the dataset", object);
  return opened;
}

}  // namespace attar::io
