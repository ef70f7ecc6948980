// The open file behind an Hdf5Store.
#pragma once

#include <mutex>
#include <string>
#include <string_view>

#include "compress/io/hdf5_handle.h"
#include "compress/io/hdf5_store.h"

namespace attar::io {

// Opened for writing only from the first change to settle(), because HDF5 marks a file for that
// time and a file whose writer died in it does not open any more.
class Hdf5Store::File {
 public:
  File(const std::filesystem::path& path, Mode mode);
  ~File();

  hid_t reading();
  hid_t writing();

  // Closes after writing (which takes HDF5's mark away) and syncs to disk.
  void settle();

  const std::string& name() const { return name_; }
  void check(bool worked, std::string_view action, std::string_view object) const {
    hdf5_check(worked, name_, action, object);
  }

  // Whether a link, and every group on the way to it, exists. "" is the root.
  bool has(std::string_view object);
  Hdf5Handle object(std::string_view object, bool for_writing);  // BadInput when absent
  Hdf5Handle dataset(std::string_view object, bool for_writing);

 private:
  void open(unsigned flags);
  bool close();

  std::filesystem::path path_;
  std::string name_;
  Mode mode_;
  Hdf5Handle handle_;
  bool writing_ = false;
};

// Held during every call into HDF5.
std::unique_lock<std::recursive_mutex> hdf5_turn();

// "" and "a/b" as HDF5 wants them: "/" and "/a/b".
std::string hdf5_path(std::string_view name);

}  // namespace attar::io
