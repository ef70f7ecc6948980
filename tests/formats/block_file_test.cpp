#include "compress/formats/block_file.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "tests/formats/round_to_nearest.h"
#include "tests/formats/tiny_model.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;
using io::testing::slurp;
using io::testing::TemporaryFolder;
using testing::random_values;
using testing::round_to_nearest;

// A block in which every kind of weight stands somewhere.
Block mixed_block() {
  const at::Tensor values = random_values({64, 64}, 1);
  QuantScheme minima{4, 32, ZeroPoint::kMinimum, at::kHalf};
  QuantScheme rows{3, 0, ZeroPoint::kInteger, at::kBFloat16};
  QuantScheme symmetric{8, 64, ZeroPoint::kSymmetric, at::kFloat};
  const LowRankWeight factors{random_values({64, 5}, 2), random_values({5, 64}, 3)};
  const LowRankWeight on_a_grid{factors.b, factors.a, 321};
  Block block{{random_values({64}, 4), random_values({64}, 5), random_values({16}, 8),
               random_values({16}, 9)},
              {}};
  block[Role::kQuery] = {DenseWeight{values}, random_values({64}, 6)};
  block[Role::kKey] = {DenseWeight{values.to(at::kBFloat16)}, {}};
  block[Role::kValue] = {round_to_nearest(values, minima), {}};
  block[Role::kOutput] = {round_to_nearest(values, rows), random_values({64}, 7)};
  block[Role::kGate] = {to_sparse(values * (values > 0.3)), {}};
  block[Role::kUp] = {factors, {}};
  block[Role::kDown] = {CorrectedWeight{round_to_nearest(values, symmetric), on_a_grid}, {}};
  return block;
}

TEST(BlockFile, KeepsEveryKindOfWeightBitForBit) {
  const TemporaryFolder folder;
  const Block block = mixed_block();
  write_block_file(folder / "b.safetensors", block);
  const Block read = read_block_file(folder / "b.safetensors");
  for (const Norm norm : kNorms) EXPECT_TRUE(at::equal(read[norm], block[norm]));
  for (const Role role : kRoles) {
    EXPECT_EQ(read[role].weight.index(), block[role].weight.index()) << to_string(role);
    EXPECT_TRUE(at::equal(dense(read[role].weight), dense(block[role].weight))) << to_string(role);
    EXPECT_EQ(stored_bytes(read[role].weight), stored_bytes(block[role].weight));
    ASSERT_EQ(read[role].bias.defined(), block[role].bias.defined()) << to_string(role);
    if (!block[role].bias.defined()) continue;
    EXPECT_TRUE(at::equal(read[role].bias, block[role].bias));
  }
  EXPECT_EQ(std::get<QuantizedWeight>(read[Role::kOutput].weight).scheme,
            std::get<QuantizedWeight>(block[Role::kOutput].weight).scheme);
  EXPECT_EQ(std::get<DenseWeight>(read[Role::kKey].weight).values.scalar_type(), at::kBFloat16);
}

TEST(BlockFile, KeepsThatABlockHasNoAttention) {
  const TemporaryFolder folder;
  const Block block = without_attention(mixed_block());
  write_block_file(folder / "b.safetensors", block);
  const Block read = read_block_file(folder / "b.safetensors");
  EXPECT_FALSE(attends(read));
  for (const Role role : {Role::kQuery, Role::kKey, Role::kValue, Role::kOutput}) {
    EXPECT_EQ(shape_of(read[role].weight), WeightShape{}) << to_string(role);
    EXPECT_FALSE(read[role].bias.defined());
  }
  for (const Role role : roles_of(block)) {
    EXPECT_TRUE(at::equal(dense(read[role].weight), dense(block[role].weight))) << to_string(role);
  }
}

TEST(BlockFile, WritesEqualBytesForEqualBlocks) {
  const TemporaryFolder folder;
  write_block_file(folder / "a", mixed_block());
  write_block_file(folder / "b", mixed_block());
  EXPECT_EQ(slurp(folder / "a"), slurp(folder / "b"));
}

TEST(BlockFile, NoticesOneFlippedBit) {
  const TemporaryFolder folder;
  write_block_file(folder / "b", mixed_block());
  std::string bytes = slurp(folder / "b");
  bytes[bytes.size() - 1000] ^= 1;
  folder.put("b", bytes);
  const std::string message = message_of<BadInput>([&] { read_block_file(folder / "b"); });
  EXPECT_NE(message.find("checksum"), std::string::npos) << message;
  EXPECT_NO_THROW(read_block_file(folder / "b", /*verify=*/false));
}

TEST(BlockFile, IsRefusedWhenCutOff) {
  const TemporaryFolder folder;
  write_block_file(folder / "b", mixed_block());
  const std::string bytes = slurp(folder / "b");
  for (const std::size_t size :
       {std::size_t{0}, std::size_t{5}, std::size_t{200}, bytes.size() - 1}) {
    folder.put("b", bytes.substr(0, size));
    const std::string message = message_of<BadInput>([&] { read_block_file(folder / "b"); });
    EXPECT_NE(message.find((folder / "b").string()), std::string::npos) << message;
  }
}

TEST(FolderModelStore, GivesBackWhatWasWrittenAndNothingElse) {
  const TemporaryFolder folder;
  FolderModelStore store(folder / "blocks");
  EXPECT_FALSE(store.read(12).has_value());
  store.write(12, mixed_block());
  EXPECT_EQ(store.path_of(12).filename(), "block-00012.safetensors");
  EXPECT_FALSE(store.read(1).has_value());
  const FolderModelStore second(folder / "blocks");
  const std::optional<Block> read = second.read(12);
  ASSERT_TRUE(read.has_value());
  EXPECT_TRUE(
      at::equal(dense((*read)[Role::kValue].weight), dense(mixed_block()[Role::kValue].weight)));
}

TEST(FolderModelStore, ReplacesABlockWhileAViewOfTheOldOneIsInUse) {
  const TemporaryFolder folder;
  FolderModelStore store(folder.path(), [](std::int64_t i) { return "x" + std::to_string(i); });
  Block block = mixed_block();
  store.write(0, block);
  const Block old = *store.read(0);
  block[Norm::kAttention] = block[Norm::kAttention] + 1;
  store.write(0, block);
  EXPECT_TRUE(at::equal(old[Norm::kAttention], mixed_block()[Norm::kAttention]));
  EXPECT_TRUE(at::equal((*store.read(0))[Norm::kAttention], block[Norm::kAttention]));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"x0"});
}

}  // namespace
}  // namespace attar
