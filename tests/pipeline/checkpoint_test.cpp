#include "compress/pipeline/checkpoint.h"

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include "compress/io/atomic_file.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

BlockOutcome outcome() {
  BlockOutcome made;
  made.block[Norm::kAttention] = at::ones({4}, at::kFloat);
  made.block[Norm::kMlp] = at::ones({4}, at::kFloat);
  for (const Role role : kRoles)
    made.block[role].weight = DenseWeight{at::ones({4, 4}, at::kFloat)};
  made.reports.resize(1);
  made.reports[0].changed.push_back({"model.layers.3.mlp.down_proj", "W4", 64, 16, 0.25, 0.5, 1.0});
  return made;
}

TEST(Checkpoint, GivesBackWhatWasFinishedAndNothingElse) {
  const io::testing::TemporaryFolder folder;
  Checkpoint(folder.path(), "id").finish(3, outcome());
  Checkpoint again(folder.path(), "id");
  EXPECT_TRUE(again.any_on_disk());
  const auto found = again.restore(3);
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->reports.at(0).changed.at(0).error, 0.25);
  EXPECT_FALSE(again.restore(2).has_value());
  EXPECT_FALSE(Checkpoint(folder.path(), "other").restore(3).has_value());
}

TEST(Checkpoint, ABlockWithoutItsReportWasNotFinished) {
  const io::testing::TemporaryFolder folder;
  Checkpoint(folder.path(), "id").finish(0, outcome());
  std::filesystem::remove(folder.path() / "block-00000-id.json");
  EXPECT_FALSE(Checkpoint(folder.path(), "id").restore(0).has_value());
}

TEST(Checkpoint, DamageIsNoticedAndNamed) {
  const io::testing::TemporaryFolder folder;
  Checkpoint(folder.path(), "id").finish(0, outcome());
  const auto path = folder.path() / "block-00000-id.safetensors";
  std::string bytes = io::read_file(path);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  io::write_file(path, bytes);
  Checkpoint again(folder.path(), "id");
  EXPECT_FALSE(again.restore(0).has_value());
  EXPECT_EQ(again.damaged(), std::vector<std::string>{"block-00000-id.safetensors"});
}

}  // namespace
}  // namespace attar
