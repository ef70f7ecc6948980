#include "compress/io/imatrix.h"

#include <cmath>
#include <cstring>
#include <span>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/io/gguf_file.h"
#include "compress/io/gguf_writer.h"

namespace attar::io {
namespace {

constexpr std::string_view kSums = ".in_sum2", kCounts = ".counts";
constexpr std::int32_t kMostColumns = 1 << 24;

void check_means(const ImportanceMatrix& matrix, const std::string& where) {
  require(!matrix.means.empty(), where, "holds no layers");
  for (const auto& [name, means] : matrix.means) {
    for (const float mean : means) {
      require(std::isfinite(mean) && mean >= 0, where, name, " holds the mean ", mean,
              ", which no squares have");
    }
  }
}

// Takes values from the front of a file.
class Cursor {
 public:
  Cursor(std::string_view bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  std::string_view take(std::uint64_t count) {
    require(count <= bytes_.size(), where_, "ends inside of an entry; it is damaged or no ",
            "importance matrix");
    const std::string_view taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  std::int32_t number(std::int32_t most) {
    std::int32_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    require(value >= 0 && value <= most, where_, "a count or length is ", value,
            "; it is damaged or no importance matrix");
    return value;
  }
  bool at_end() const { return bytes_.empty(); }

 private:
  std::string_view bytes_;
  std::string where_;
};

ImportanceMatrix read_dat(const std::string& bytes, const std::string& where) {
  constexpr std::int32_t kMostName = 1 << 16, kMost = 1 << 30;
  Cursor cursor(bytes, where);
  ImportanceMatrix matrix;
  const std::int32_t entries = cursor.number(1 << 20);
  for (std::int32_t i = 0; i < entries; ++i) {
    const std::string name(cursor.take(static_cast<std::uint64_t>(cursor.number(kMostName))));
    const auto calls = static_cast<float>(cursor.number(kMost));
    const auto columns = static_cast<std::size_t>(cursor.number(kMostColumns));
    std::vector<float> means(columns);
    std::memcpy(means.data(), cursor.take(columns * sizeof(float)).data(), columns * sizeof(float));
    for (float& mean : means) mean = calls > 0 ? mean / calls : mean;
    require(matrix.means.emplace(name, std::move(means)).second, where, name, " stands twice");
  }
  if (!cursor.at_end()) matrix.chunks = static_cast<std::uint32_t>(cursor.number(kMost));
  if (!cursor.at_end()) {
    matrix.texts.emplace_back(cursor.take(static_cast<std::uint64_t>(cursor.number(kMostName))));
  }
  return matrix;
}

std::vector<float> floats_of(const GgufTensor& tensor, const std::string& where) {
  require(tensor.type == GgmlType::f32, where, tensor.name, " must be F32");
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), values.size() * sizeof(float));
  return values;
}

ImportanceMatrix read_gguf(const std::filesystem::path& path) {
  const std::string where = path.string();
  const GgufFile file = GgufFile::open(path);
  require(file.string_or("general.type", "") == "imatrix", where,
          "general.type is not 'imatrix': this is a model or something else");
  ImportanceMatrix matrix;
  matrix.chunks = file.has("imatrix.chunk_count") ? file.u32("imatrix.chunk_count") : 0;
  matrix.chunk_size = file.has("imatrix.chunk_size") ? file.u32("imatrix.chunk_size") : 0;
  if (file.has("imatrix.datasets")) {
    for (const std::string_view text : file.strings("imatrix.datasets")) {
      matrix.texts.emplace_back(text);
    }
  }
  for (const GgufTensor& tensor : file.tensors()) {
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string name(tensor.name.substr(0, tensor.name.size() - kSums.size()));
    std::vector<float> means = floats_of(tensor, where);
    const std::vector<float> counts = floats_of(file.tensor(name + std::string(kCounts)), where);
    require(counts.size() == 1 && (tensor.ne.size() == 1 || tensor.ne[1] == 1), where, name,
            " has ", counts.size(), " matrices; models of experts are not supported");
    for (float& mean : means) mean = counts[0] > 0 ? mean / counts[0] : mean;
    matrix.means.emplace(name, std::move(means));
  }
  return matrix;
}

template <class T>
void put(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_text(std::string& bytes, std::string_view text) {
  put(bytes, static_cast<std::int32_t>(text.size()));
  bytes.append(text);
}

std::string dat_of(const ImportanceMatrix& matrix) {
  std::string bytes;
  put(bytes, static_cast<std::int32_t>(matrix.means.size()));
  for (const auto& [name, means] : matrix.means) {
    put_text(bytes, name);
    put(bytes, std::int32_t{1});
    put(bytes, static_cast<std::int32_t>(means.size()));
    bytes.append(reinterpret_cast<const char*>(means.data()), means.size() * sizeof(float));
  }
  put(bytes, static_cast<std::int32_t>(matrix.chunks));
  put_text(bytes, matrix.texts.empty() ? std::string_view() : matrix.texts.front());
  return bytes;
}

void write_gguf(const std::filesystem::path& path, const ImportanceMatrix& matrix) {
  GgufWriter writer(path);
  writer.set_string("general.type", "imatrix");
  writer.set_strings("imatrix.datasets", std::span<const std::string>(matrix.texts));
  writer.set_u32("imatrix.chunk_count", matrix.chunks);
  writer.set_u32("imatrix.chunk_size", matrix.chunk_size);
  const auto sums = [](const std::string& name) { return name + std::string(kSums); };
  const auto counts = [](const std::string& name) { return name + std::string(kCounts); };
  for (const auto& [name, means] : matrix.means) {
    const auto columns = static_cast<std::int64_t>(means.size());
    writer.declare(sums(name), GgmlType::f32, {columns, 1});
    writer.declare(counts(name), GgmlType::f32, {1, 1});
  }
  const float one = 1;
  for (const auto& [name, means] : matrix.means) {
    writer.append(sums(name), std::as_bytes(std::span(means)));
    writer.append(counts(name), std::as_bytes(std::span(&one, 1)));
  }
  writer.finish();
}

}  // namespace

ImportanceMatrix read_importance_matrix(const std::filesystem::path& path) {
  const std::string where = path.string();
  const std::string start = read_file(path);
  ImportanceMatrix matrix = start.starts_with("GGUF") ? read_gguf(path) : read_dat(start, where);
  check_means(matrix, where);
  return matrix;
}

void write_importance_matrix(const std::filesystem::path& path, const ImportanceMatrix& matrix) {
  check_means(matrix, path.string());
  if (path.extension() == ".dat") return write_file(path, dat_of(matrix));
  write_gguf(path, matrix);
}

}  // namespace attar::io
