// Attributes of the groups and datasets of an Hdf5Store.
#include <algorithm>

#include "compress/core/errors.h"
#include "compress/io/hdf5_store.h"
#include "compress/io/hdf5_store_file.h"

namespace attar::io {
namespace {

void make_group(hid_t file, std::string_view name) {
  const Hdf5Handle links(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(links.get(), 1);
  const Hdf5Handle group(
      H5Gcreate2(file, hdf5_path(name).c_str(), links.get(), H5P_DEFAULT, H5P_DEFAULT), H5Gclose);
}

Hdf5Handle string_type(std::size_t length) {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), std::max<std::size_t>(length, 1));
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

bool replace_attribute(hid_t object, const std::string& key, hid_t file_type, hid_t memory_type,
                       const void* value) {
  if (H5Aexists(object, key.c_str()) > 0 && H5Adelete(object, key.c_str()) < 0) return false;
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(
      H5Acreate2(object, key.c_str(), file_type, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  return attribute.valid() && H5Awrite(attribute.get(), memory_type, value) >= 0;
}

Hdf5Handle open_attribute(const std::string& where, hid_t object, std::string_view name,
                          std::string_view key) {
  const std::string text(key);
  require(H5Aexists(object, text.c_str()) > 0, where, "'", name, "' has no attribute '", key, "'");
  Hdf5Handle attribute(H5Aopen(object, text.c_str(), H5P_DEFAULT), H5Aclose);
  hdf5_check(attribute.valid(), where, "open the attribute", key);
  const Hdf5Handle space(H5Aget_space(attribute.get()), H5Sclose);
  require(H5Sget_simple_extent_npoints(space.get()) == 1, where, "attribute '", key, "' of '", name,
          "' is no single value");
  return attribute;
}

template <class T>
T read_number(const std::string& where, hid_t attribute, std::string_view key, H5T_class_t kind,
              hid_t memory_type) {
  const Hdf5Handle type(H5Aget_type(attribute), H5Tclose);
  require(H5Tget_class(type.get()) == kind, where, "attribute '", key,
          "' holds another type than asked for");
  T value{};
  hdf5_check(H5Aread(attribute, memory_type, &value) >= 0, where, "read the attribute", key);
  return value;
}

}  // namespace

void Hdf5Store::set_attribute(std::string_view object, std::string_view key,
                              std::string_view value) {
  const auto turn = hdf5_turn();
  if (!file_->has(object)) make_group(file_->writing(), object);
  const Hdf5Handle opened = file_->object(object, true);
  const Hdf5Handle type = string_type(value.size());
  const std::string text(value);
  file_->check(
      replace_attribute(opened.get(), std::string(key), type.get(), type.get(), text.c_str()),
      "write the attribute", key);
}

void Hdf5Store::set_attribute(std::string_view object, std::string_view key, std::int64_t value) {
  const auto turn = hdf5_turn();
  if (!file_->has(object)) make_group(file_->writing(), object);
  const Hdf5Handle opened = file_->object(object, true);
  file_->check(
      replace_attribute(opened.get(), std::string(key), H5T_STD_I64LE, H5T_NATIVE_INT64, &value),
      "write the attribute", key);
}

void Hdf5Store::set_attribute(std::string_view object, std::string_view key, double value) {
  const auto turn = hdf5_turn();
  if (!file_->has(object)) make_group(file_->writing(), object);
  const Hdf5Handle opened = file_->object(object, true);
  file_->check(
      replace_attribute(opened.get(), std::string(key), H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, &value),
      "write the attribute", key);
}

bool Hdf5Store::has_attribute(std::string_view object, std::string_view key) const {
  const auto turn = hdf5_turn();
  if (!file_->has(object)) return false;
  const Hdf5Handle opened = file_->object(object, false);
  return H5Aexists(opened.get(), std::string(key).c_str()) > 0;
}

std::string Hdf5Store::string_attribute(std::string_view object, std::string_view key) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle opened = file_->object(object, false);
  const Hdf5Handle attribute = open_attribute(file_->name(), opened.get(), object, key);
  const Hdf5Handle stored(H5Aget_type(attribute.get()), H5Tclose);
  require(H5Tget_class(stored.get()) == H5T_STRING, file_->name(), "attribute '", key, "' of '",
          object, "' is no string");
  if (H5Tis_variable_str(stored.get()) > 0) {  // as h5py writes them
    char* text = nullptr;
    const herr_t done = H5Aread(attribute.get(), stored.get(), &text);
    file_->check(done >= 0 && text != nullptr, "read the attribute", key);
    std::string value(text);
    H5free_memory(text);
    return value;
  }
  std::string value(H5Tget_size(stored.get()), '\0');
  const herr_t done = H5Aread(attribute.get(), stored.get(), value.data());
  file_->check(done >= 0, "read the attribute", key);
  value.erase(value.find_last_not_of('\0') + 1);
  return value;
}

std::int64_t Hdf5Store::int_attribute(std::string_view object, std::string_view key) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle opened = file_->object(object, false);
  const Hdf5Handle attribute = open_attribute(file_->name(), opened.get(), object, key);
  return read_number<std::int64_t>(file_->name(), attribute.get(), key, H5T_INTEGER,
                                   H5T_NATIVE_INT64);
}

double Hdf5Store::double_attribute(std::string_view object, std::string_view key) const {
  const auto turn = hdf5_turn();
  const Hdf5Handle opened = file_->object(object, false);
  const Hdf5Handle attribute = open_attribute(file_->name(), opened.get(), object, key);
  return read_number<double>(file_->name(), attribute.get(), key, H5T_FLOAT, H5T_NATIVE_DOUBLE);
}

}  // namespace attar::io
