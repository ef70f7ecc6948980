// Named arrays in one HDF5 file, written group by group and safely against crashes.
//
// Layout: groups nest as in a file system ("layers/0/q_proj"); a dataset is little-endian,
// row-major, contiguous. h5py and other HDF5 programs read the files (format of HDF5 1.10).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace attar::io {

template <class T>
concept Hdf5Number = std::is_same_v<T, float> || std::is_same_v<T, double> ||
    std::is_same_v<T, std::int64_t> || std::is_same_v<T, std::int32_t> ||
    std::is_same_v<T, std::uint16_t> || std::is_same_v<T, std::uint8_t>;

// An open store. Every failure is IoError with the path, the name and HDF5's own reason; reading a
// dataset as another type than it was written in, a wrong element count and a missing name are
// BadInput. All calls of all stores take turns (HDF5 is not thread-safe here).
class Hdf5Store {
 public:
  enum class Mode {
    read,    // must exist
    update,  // created when absent
    create,  // truncates what was there
  };

  Hdf5Store(const std::filesystem::path& path, Mode mode);
  Hdf5Store(Hdf5Store&&) noexcept;
  Hdf5Store& operator=(Hdf5Store&&) noexcept;
  ~Hdf5Store();

  // Whether `path` is a whole store: exists, is HDF5, is not cut off, and no writer died with it
  // open (a kill -9 while a store is open for writing marks it so). Never throws: rebuild the store
  // when this is false.
  static bool readable(const std::filesystem::path& path) noexcept;
  // Throws BadInput for a file that is there and no HDF5, IoError while somebody writes it: such a
  // file is not to be begun anew.
  static void require_own(const std::filesystem::path& path);

  bool exists(std::string_view name) const;                         // a group or a dataset
  std::vector<std::string> children(std::string_view group) const;  // names, ascending; "" = root

  // Datasets; rows have checksums, and bytes that changed on the disk are IoError when they are
  // read. Groups on the way are made. write() refuses a name that is taken.
  template <Hdf5Number T>
  void write(std::string_view name, std::span<const T> values, std::span<const std::int64_t> shape);
  template <Hdf5Number T>
  std::vector<T> read(std::string_view name) const;
  template <Hdf5Number T>
  void read_into(std::string_view name, std::span<T> values) const;  // exact element count
  std::vector<std::int64_t> shape(std::string_view name) const;

  // Rows [first, first + n) along dimension 0, n from the span's size: for arrays larger than
  // memory.
  template <Hdf5Number T>
  void read_rows(std::string_view name, std::int64_t first, std::span<T> values) const;

  // Attributes of a group or dataset ("" = the root); setting replaces.
  void set_attribute(std::string_view object, std::string_view key, std::string_view value);
  void set_attribute(std::string_view object, std::string_view key, std::int64_t value);
  void set_attribute(std::string_view object, std::string_view key, double value);
  bool has_attribute(std::string_view object, std::string_view key) const;
  std::string string_attribute(std::string_view object, std::string_view key) const;
  std::int64_t int_attribute(std::string_view object, std::string_view key) const;
  double double_attribute(std::string_view object, std::string_view key) const;

  // Removes a group or dataset; nothing happens when it is absent. The file does not shrink.
  void remove(std::string_view name);

  // Makes `group` whole or not at all: `fill` writes below the temporary group whose name it is
  // given; then that group is moved over `group` (replacing it) and the file flushed to disk. When
  // `fill` throws, the temporary is removed and the error passed on.
  void write_group(std::string_view group,
                   const std::function<void(Hdf5Store& store, const std::string& below)>& fill);

  // Hands all bytes to the disk (H5Fflush and fsync).
  void flush();

  const std::filesystem::path& path() const { return path_; }

 private:
  class File;
  std::filesystem::path path_;
  std::unique_ptr<File> file_;
};

}  // namespace attar::io
