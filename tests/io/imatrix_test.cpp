#include "compress/io/imatrix.h"

#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "tests/io/temporary_folder.h"

namespace attar::io {
namespace {

using testing::TemporaryFolder;

ImportanceMatrix example() {
  ImportanceMatrix matrix;
  matrix.means["blk.0.attn_q.weight"] = {0.1F, 2.5F, 0.0F, 1e-9F};
  matrix.means["blk.0.ffn_down.weight"] = {3, 4, 5};
  matrix.texts = {"c4.txt"};
  matrix.chunks = 12;
  matrix.chunk_size = 512;
  return matrix;
}

TEST(ImportanceMatrices, ComeBackFromBothForms) {
  const TemporaryFolder folder;
  for (const char* name : {"matrix.gguf", "matrix.dat"}) {
    write_importance_matrix(folder.path() / name, example());
    const ImportanceMatrix found = read_importance_matrix(folder.path() / name);
    EXPECT_EQ(found.means, example().means) << name;
    EXPECT_EQ(found.texts, example().texts);
    EXPECT_EQ(found.chunks, 12U);
  }
}

// Two entries' bytes by hand: sums of two calls.
TEST(ImportanceMatrices, OfTheOlderFormAreDividedByTheirCalls) {
  const TemporaryFolder folder;
  const auto text = [](std::int32_t number) {
    return std::string(reinterpret_cast<const char*>(&number), 4);
  };
  const float sums[] = {6, 8};
  write_file(folder.path() / "a.dat", text(1) + text(1) + "x" + text(2) + text(2) +
                                          std::string(reinterpret_cast<const char*>(sums), 8));
  const ImportanceMatrix found = read_importance_matrix(folder.path() / "a.dat");
  EXPECT_EQ(found.means.at("x"), (std::vector<float>{3, 4}));
}

TEST(ImportanceMatrices, OfHostileBytesAreRefused) {
  const TemporaryFolder folder;
  const std::filesystem::path path = folder.path() / "a.dat";
  write_importance_matrix(path, example());
  const std::string whole = read_file(path);
  for (std::size_t cut = 0; cut + 14 < whole.size(); ++cut) {
    write_file(path, whole.substr(0, cut));
    EXPECT_THROW(read_importance_matrix(path), BadInput) << cut;
  }
  ImportanceMatrix negative = example();
  negative.means.begin()->second[0] = -1;
  EXPECT_THROW(write_importance_matrix(path, negative), BadInput);
}

}  // namespace
}  // namespace attar::io
