#include "compress/io/hdf5_handle.h"

#include <cerrno>

#include "compress/core/errors.h"

namespace attar::io {
namespace {

// Called from the innermost failure outwards; the first two say the most.
herr_t collect(unsigned depth, const H5E_error2_t* error, void* data) {
  auto& text = *static_cast<std::string*>(data);
  if (depth < 2 && error->desc != nullptr) {
    if (!text.empty()) text += "; ";
    text += error->desc;
  }
  return 0;
}

}  // namespace

void silence_hdf5() {
  static const herr_t once = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  (void)once;
}

std::string take_hdf5_error() {
  std::string text;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &text);
  H5Eclear2(H5E_DEFAULT);
  return text.empty() ? "HDF5 gives no reason" : text;
}

void hdf5_check(bool worked, std::string_view path, std::string_view action,
                std::string_view name) {
  if (worked) return;
  throw IoError(message(path, "cannot ", action, " '", name, "': ", take_hdf5_error(),
                        "; remove the file to let it be built again, and see that the disk has "
                        "space"));
}

}  // namespace attar::io
