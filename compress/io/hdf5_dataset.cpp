// Datasets of an Hdf5Store.
#include <algorithm>

#include "compress/core/errors.h"
#include "compress/io/hdf5_store.h"
#include "compress/io/hdf5_store_file.h"

namespace attar::io {
namespace {

struct NumberType {
  hid_t memory;
  hid_t file;
};

template <Hdf5Number T>
NumberType number_type() {
  if constexpr (std::is_same_v<T, float>) return {H5T_NATIVE_FLOAT, H5T_IEEE_F32LE};
  if constexpr (std::is_same_v<T, double>) return {H5T_NATIVE_DOUBLE, H5T_IEEE_F64LE};
  if constexpr (std::is_same_v<T, std::int64_t>) return {H5T_NATIVE_INT64, H5T_STD_I64LE};
  if constexpr (std::is_same_v<T, std::int32_t>) return {H5T_NATIVE_INT32, H5T_STD_I32LE};
  if constexpr (std::is_same_v<T, std::uint16_t>) return {H5T_NATIVE_UINT16, H5T_STD_U16LE};
  if constexpr (std::is_same_v<T, std::uint8_t>) return {H5T_NATIVE_UINT8, H5T_STD_U8LE};
}

struct Extent {
  std::vector<hsize_t> shape;
  hsize_t elements = 1;
};

Extent extent_of(const std::string& where, std::string_view name,
                 std::span<const std::int64_t> shape) {
  Extent extent;
  for (const std::int64_t size : shape) {
    hsize_t product = 0;
    const bool fits =
        size >= 0 && !__builtin_mul_overflow(extent.elements, static_cast<hsize_t>(size), &product);
    require(fits, where, "'", name, "' cannot have the extent ", size);
    extent.elements = product;
    extent.shape.push_back(static_cast<hsize_t>(size));
  }
  return extent;
}

Hdf5Handle make_space(const Extent& extent) {
  if (extent.shape.empty()) return {H5Screate(H5S_SCALAR), H5Sclose};
  return {H5Screate_simple(static_cast<int>(extent.shape.size()), extent.shape.data(), nullptr),
          H5Sclose};
}

Extent stored_extent(hid_t dataset) {
  const Hdf5Handle space(H5Dget_space(dataset), H5Sclose);
  Extent extent;
  const int rank = H5Sget_simple_extent_ndims(space.get());
  extent.shape.resize(static_cast<std::size_t>(std::max(rank, 0)));
  if (rank > 0) H5Sget_simple_extent_dims(space.get(), extent.shape.data(), nullptr);
  for (const hsize_t size : extent.shape) {
    require(!__builtin_mul_overflow(extent.elements, size, &extent.elements), "store",
            "a dataset's size overflows");
  }
  return extent;
}

// The stored type must be T, and the bytes must really be in the file before memory is asked for.
template <Hdf5Number T>
Extent check_stored(const std::string& where, std::string_view name, hid_t dataset) {
  const Hdf5Handle stored(H5Dget_type(dataset), H5Tclose);
  require(H5Tequal(stored.get(), number_type<T>().file) > 0, where, "'", name,
          "' holds another element type than asked for");
  Extent extent = stored_extent(dataset);
  require(H5Dget_storage_size(dataset) / sizeof(T) >= extent.elements, where, "'", name,
          "' is not stored whole and uncompressed");
  return extent;
}

// Rows together in a chunk, each with a checksum that is looked at whenever it is read.
constexpr hsize_t kChunkBytes = 256 << 10;

template <Hdf5Number T>
Hdf5Handle make_dataset(hid_t file, std::string_view name, const Extent& extent) {
  const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  const Hdf5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_fill_time(creation.get(), H5D_FILL_TIME_NEVER);
  if (!extent.shape.empty() && extent.elements > 0) {
    std::vector<hsize_t> chunk = extent.shape;
    const hsize_t row = extent.elements / chunk[0] * sizeof(T);
    chunk[0] = std::clamp<hsize_t>(kChunkBytes / row, 1, chunk[0]);
    H5Pset_chunk(creation.get(), static_cast<int>(chunk.size()), chunk.data());
    H5Pset_fletcher32(creation.get());
  }
  const Hdf5Handle space = make_space(extent);
  return {H5Dcreate2(file, hdf5_path(name).c_str(), number_type<T>().file, space.get(), links.get(),
                     creation.get(), H5P_DEFAULT),
          H5Dclose};
}

struct Rows {
  Hdf5Handle file_space;
  Hdf5Handle memory_space;
};

// The part of a dataset that `count` elements from row `first` fill.
Rows select_rows(const std::string& where, std::string_view name, hid_t dataset,
                 const Extent& extent, std::int64_t first, std::size_t count) {
  require(!extent.shape.empty() && extent.elements > 0, where, "'", name, "' has no rows");
  const hsize_t row = extent.elements / extent.shape[0];
  const hsize_t rows = count / row;
  const bool inside = count % row == 0 && first >= 0 &&
                      static_cast<hsize_t>(first) <= extent.shape[0] &&
                      rows <= extent.shape[0] - static_cast<hsize_t>(first);
  require(inside, where, "'", name, "' has ", extent.shape[0], " rows of ", row, " elements; got ",
          count, " elements from row ", first);
  std::vector<hsize_t> start(extent.shape.size(), 0);
  std::vector<hsize_t> counts = extent.shape;
  start[0] = static_cast<hsize_t>(first);
  counts[0] = rows;
  Rows selected{{H5Dget_space(dataset), H5Sclose}, {}};
  H5Sselect_hyperslab(selected.file_space.get(), H5S_SELECT_SET, start.data(), nullptr,
                      counts.data(), nullptr);
  const hsize_t total = count;
  selected.memory_space = Hdf5Handle(H5Screate_simple(1, &total, nullptr), H5Sclose);
  return selected;
}

}  // namespace

template <Hdf5Number T>
void Hdf5Store::write(std::string_view name, std::span<const T> values,
                      std::span<const std::int64_t> shape) {
  const auto turn = hdf5_turn();
  const Extent extent = extent_of(file_->name(), name, shape);
  require(extent.elements == values.size(), file_->name(), "'", name, "' of ", extent.elements,
          " elements gets ", values.size());
  require(!name.empty() && !file_->has(name), file_->name(), "'", name, "' is taken");
  const Hdf5Handle dataset = make_dataset<T>(file_->writing(), name, extent);
  file_->check(dataset.valid(), "create", name);
  if (values.empty()) return;
  const herr_t done = H5Dwrite(dataset.get(), number_type<T>().memory, H5S_ALL, H5S_ALL,
                               H5P_DEFAULT, values.data());
  file_->check(done >= 0, "write", name);
}

template <Hdf5Number T>
std::vector<T> Hdf5Store::read(std::string_view name) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle dataset = file_->dataset(name, false);
  const Extent extent = check_stored<T>(file_->name(), name, dataset.get());
  std::vector<T> values(extent.elements);
  read_into<T>(name, values);
  return values;
}

template <Hdf5Number T>
void Hdf5Store::read_into(std::string_view name, std::span<T> values) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle dataset = file_->dataset(name, false);
  const Extent extent = check_stored<T>(file_->name(), name, dataset.get());
  require(extent.elements == values.size(), file_->name(), "'", name, "' holds ", extent.elements,
          " elements, wanted ", values.size());
  if (values.empty()) return;
  const herr_t done =
      H5Dread(dataset.get(), number_type<T>().memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data());
  file_->check(done >= 0, "read", name);
}

std::vector<std::int64_t> Hdf5Store::shape(std::string_view name) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle dataset = file_->dataset(name, false);
  const Extent extent = stored_extent(dataset.get());
  return {extent.shape.begin(), extent.shape.end()};
}

template <Hdf5Number T>
void Hdf5Store::read_rows(std::string_view name, std::int64_t first, std::span<T> values) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle dataset = file_->dataset(name, false);
  const Extent extent = check_stored<T>(file_->name(), name, dataset.get());
  const Rows rows = select_rows(file_->name(), name, dataset.get(), extent, first, values.size());
  if (values.empty()) return;
  const herr_t done = H5Dread(dataset.get(), number_type<T>().memory, rows.memory_space.get(),
                              rows.file_space.get(), H5P_DEFAULT, values.data());
  file_->check(done >= 0, "read rows of", name);
}

#define ATTAR_INSTANTIATE(T)                                                   \
  template void Hdf5Store::write<T>(std::string_view, std::span<const T>,      \
                                    std::span<const std::int64_t>);            \
  template std::vector<T> Hdf5Store::read<T>(std::string_view) const;          \
  template void Hdf5Store::read_into<T>(std::string_view, std::span<T>) const; \
  template void Hdf5Store::read_rows<T>(std::string_view, std::int64_t, std::span<T>) const;
ATTAR_INSTANTIATE(float)
ATTAR_INSTANTIATE(double)
ATTAR_INSTANTIATE(std::int64_t)
ATTAR_INSTANTIATE(std::int32_t)
ATTAR_INSTANTIATE(std::uint16_t)
ATTAR_INSTANTIATE(std::uint8_t)
#undef ATTAR_INSTANTIATE

}  // namespace attar::io
