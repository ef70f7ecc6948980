// encode_blocks NUMBER VALUES OUT: float32 values of a file as blocks of the NUMBER-th type of
// GgmlBlock. encode_blocks NUMBER decode BLOCKS OUT: the other way.
// Driven by tests/python/test_ggml_types.py.
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "compress/kernels/ggml_blocks/ggml_blocks.h"

namespace {

std::vector<char> read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write(const std::string& path, const void* data, std::size_t bytes) {
  std::ofstream(path, std::ios::binary)
      .write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  using namespace attar::kernels;
  const auto type = static_cast<GgmlBlock>(std::atoi(argv[1]));
  const GgmlBlockInfo& info = ggml_block_info(type);
  const bool decode = std::string(argv[2]) == "decode";
  const std::vector<char> in = read(argv[decode ? 3 : 2]);
  if (decode) {
    const auto count = static_cast<std::int64_t>(in.size()) / info.bytes * info.elements;
    std::vector<float> values(static_cast<std::size_t>(count));
    ggml_dequantize(type, in.data(), count, values.data());
    write(argv[4], values.data(), values.size() * sizeof(float));
    return 0;
  }
  std::vector<float> values(in.size() / sizeof(float));
  __builtin_memcpy(values.data(), in.data(), in.size());
  const auto count = static_cast<std::int64_t>(values.size());
  std::vector<char> blocks(static_cast<std::size_t>(count / info.elements * info.bytes));
  ggml_quantize(type, values.data(), count, blocks.data());
  write(argv[3], blocks.data(), blocks.size());
  return 0;
}
