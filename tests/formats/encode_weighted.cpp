// encode_weighted TYPE VALUES WEIGHTS OUT: float32 rows of a file as blocks of the GGUF type,
// rounded for the least squared error under the weights of the columns, one float32 each.
// Driven by tests/python/test_ggml_types.py.
#include <ATen/ops/empty.h>

#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "compress/formats/gguf_blocks.h"

namespace {

at::Tensor read(const char* path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> bytes{std::istreambuf_iterator<char>(in), {}};
  at::Tensor values = at::empty({static_cast<std::int64_t>(bytes.size() / 4)}, at::kFloat);
  __builtin_memcpy(values.data_ptr<float>(), bytes.data(), bytes.size());
  return values;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  const at::Tensor weights = read(argv[3]).to(at::kDouble);
  const at::Tensor values = read(argv[2]).reshape({-1, weights.size(0)});
  const std::vector<std::byte> blocks =
      attar::encode_weighted(attar::io::find_ggml_type(argv[1])->type, values, weights);
  std::ofstream(argv[4], std::ios::binary)
      .write(reinterpret_cast<const char*>(blocks.data()),
             static_cast<std::streamsize>(blocks.size()));
  return 0;
}
