#include "compress/pipeline/run_log.h"

#include <gtest/gtest.h>

#include <fstream>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

std::vector<nlohmann::json> lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<nlohmann::json> all;
  for (std::string line; std::getline(file, line);) all.push_back(nlohmann::json::parse(line));
  return all;
}

TEST(RunLog, AppendsOneObjectALine) {
  const io::testing::TemporaryFolder folder;
  const auto path = folder.path() / "run.jsonl";
  RunLog(path).write("start", {{"a", 1}});
  RunLog(path).write("resume", {{"text", "two\nlines"}});
  const auto found = lines(path);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0]["event"], "start");
  EXPECT_EQ(found[1]["text"], "two\nlines");
  EXPECT_TRUE(found[1].contains("time"));
}

TEST(RunLog, CutsOffALineThatACrashTore) {
  const io::testing::TemporaryFolder folder;
  const auto path = folder.path() / "run.jsonl";
  io::write_file(path, "{\"event\":\"whole\"}\n{\"event\":\"to");
  RunLog(path).write("next");
  const auto found = lines(path);
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0]["event"], "whole");
  EXPECT_EQ(found[1]["event"], "next");
}

TEST(RunLog, SaysWhereItCannotWrite) { EXPECT_THROW(RunLog("/nowhere/at/all/run.jsonl"), IoError); }

}  // namespace
}  // namespace attar
