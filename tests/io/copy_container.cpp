// Reads a file with attar and writes all of it again: copy_container safetensors|gguf|hdf5 IN OUT.
// The tests of tests/python/test_io_files.py compare both files through other people's libraries.
#include <cstdio>
#include <exception>
#include <string>

#include "compress/io/gguf_file.h"
#include "compress/io/hdf5_store.h"
#include "compress/io/safetensors_file.h"

namespace attar::io {
namespace {

void copy_safetensors(const std::string& from, const std::string& to) {
  const auto source = SafetensorsFile::open(from);
  std::vector<TensorPlan> plans;
  for (const TensorView& tensor : source.tensors()) {
    plans.push_back({tensor.name, tensor.type, tensor.shape});
  }
  SafetensorsWriter writer(to, plans, source.metadata());
  for (const TensorView& tensor : source.tensors()) writer.append(tensor.name, tensor.bytes);
  writer.finish();
}

void copy_gguf(const std::string& from, const std::string& to) {
  const auto source = GgufFile::open(from);
  GgufWriter writer(to);
  for (const GgufEntry& entry : source.entries()) writer.set_entry(entry);
  for (const GgufTensor& tensor : source.tensors()) {
    writer.declare(tensor.name, tensor.type, tensor.ne);
  }
  for (const GgufTensor& tensor : source.tensors()) writer.append(tensor.name, tensor.bytes);
  writer.finish();
}

// Double datasets of the root and its attributes "note", "count", "mean".
void copy_hdf5(const std::string& from, const std::string& to) {
  const Hdf5Store source(from, Hdf5Store::Mode::read);
  Hdf5Store target(to, Hdf5Store::Mode::create);
  for (const std::string& name : source.children("")) {
    target.write<double>(name, source.read<double>(name), source.shape(name));
  }
  target.set_attribute("", "note", source.string_attribute("", "note"));
  target.set_attribute("", "count", source.int_attribute("", "count"));
  target.set_attribute("", "mean", source.double_attribute("", "mean"));
}

}  // namespace
}  // namespace attar::io

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string kind = argv[1];
  try {
    if (kind == "safetensors") attar::io::copy_safetensors(argv[2], argv[3]);
    if (kind == "gguf") attar::io::copy_gguf(argv[2], argv[3]);
    if (kind == "hdf5") attar::io::copy_hdf5(argv[2], argv[3]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
  return 0;
}
