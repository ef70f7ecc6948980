// Mapped files, atomic files, output folders, hashes, disk.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/io/disk.h"
#include "compress/io/hash.h"
#include "compress/io/mapped_file.h"
#include "compress/io/output_folder.h"
#include "tests/io/temporary_folder.h"

namespace attar::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::slurp;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

TEST(MappedFile, ShowsTheBytesOfTheFileAlsoAfterDoneWith) {
  const TemporaryFolder folder;
  const std::string content(1 << 20, 'x');
  const auto file = MappedFile::open(folder.put("a", content));
  ASSERT_EQ(file->size(), content.size());
  file->will_need(100, 5000);
  file->done_with(5000, 100'000);
  file->done_with(file->bytes().subspan(1 << 19));
  file->done_with(content.size() - 1, 1'000'000);
  file->done_with(~std::uint64_t{0}, 1);
  EXPECT_EQ(std::memcmp(file->bytes().data(), content.data(), content.size()), 0);
}

TEST(MappedFile, DoneWithGivesMemoryBack) {
  const TemporaryFolder folder;
  const std::size_t size = std::size_t{64} << 20;
  folder.put("a", std::string(size, 'x'));
  const auto file = MappedFile::open(folder / "a");
  unsigned sum = 0;
  for (std::size_t i = 0; i < size; i += 4096) sum += std::to_integer<unsigned>(file->bytes()[i]);
  ASSERT_EQ(sum, size / 4096 * 'x');
  const std::uint64_t before = current_rss_bytes();
  file->done_with(0, size);
  EXPECT_LE(current_rss_bytes() + size / 2, before);
  // The kernel counts pages in batches for each thread.
  EXPECT_GE(peak_rss_bytes() + (std::uint64_t{4} << 20), before);
}

TEST(MappedFile, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  EXPECT_EQ(MappedFile::open(folder.put("empty", ""))->size(), 0u);
  EXPECT_THAT(message_of<IoError>([&] { MappedFile::open(folder / "no"); }),
              AllOf(HasSubstr("'" + (folder / "no").string() + "'"), HasSubstr("No such file")));
  EXPECT_THAT(message_of<IoError>([&] { MappedFile::open(folder.path()); }),
              HasSubstr("Is a directory"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(message_of<IoError>([&] { MappedFile::open(folder / "pipe"); }),
              HasSubstr("no regular file"));
}

TEST(AtomicFile, AppearsWholeOrNotAtAll) {
  const TemporaryFolder folder;
  folder.put("a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new");
    EXPECT_EQ(slurp(folder / "a"), "old");
  }
  EXPECT_EQ(slurp(folder / "a"), "old");
  EXPECT_THAT(folder.names(), ElementsAre("a"));
  AtomicFile file(folder / "a");
  file.reserve(6);
  file.write("ne");
  file.write("w");
  file.write_at(5, std::as_bytes(std::span("!", 1)));
  file.commit();
  EXPECT_EQ(slurp(folder / "a"), std::string("new\0\0!", 6));
  EXPECT_THAT(folder.names(), ElementsAre("a"));
  EXPECT_THROW(file.write("x"), IoError);
}

// What a killed process left; not what one still writes, nor what somebody else called so.
TEST(AtomicFile, RemovesWhatKilledProcessesLeft) {
  const TemporaryFolder folder;
  for (const char* name :
       {"a.tmp-1-2-3", "a.tmp-4-5-6", "a.tmp-notes", "a.tmp-7-8", "b.tmp-1-2-3"}) {
    folder.put(name, "x");
    std::filesystem::last_write_time(
        folder / name, std::filesystem::file_time_type::clock::now() - std::chrono::minutes(5));
  }
  folder.put("a.tmp-9-9-9", "young");
  const int held = ::open((folder / "a.tmp-4-5-6").c_str(), O_RDONLY);
  ASSERT_EQ(::flock(held, LOCK_EX), 0);
  write_file(folder / "a", "new");
  ::close(held);
  EXPECT_THAT(folder.names(), ElementsAre("a", "a.tmp-4-5-6", "a.tmp-7-8", "a.tmp-9-9-9",
                                          "a.tmp-notes", "b.tmp-1-2-3"));
}

TEST(AtomicFile, NamesPathAndRemedyWhenTheFolderIsMissing) {
  EXPECT_THAT(message_of<IoError>([] { write_file("/nowhere/at/all", "x"); }),
              AllOf(HasSubstr("'/nowhere/at/all'"), HasSubstr("check the path")));
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<IoError>([&] { write_file(folder.path(), "x"); }),
              HasSubstr("Is a directory"));
}

// A limit on file sizes stands in for a full disk: the same path through write and reserve.
TEST(AtomicFile, AFullDiskLeavesNothingBehind) {
  const TemporaryFolder folder;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{1 << 16, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string content(1 << 17, 'x');
  const std::string on_write = message_of<IoError>([&] { write_file(folder / "a", content); });
  const std::string on_reserve =
      message_of<IoError>([&] { AtomicFile(folder / "a").reserve(content.size()); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(on_write, AllOf(HasSubstr("cannot write"), HasSubstr("File too large")));
  EXPECT_THAT(on_reserve, HasSubstr("File too large"));
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(AtomicFile, CopiesAndReadsWholeFiles) {
  const TemporaryFolder folder;
  const std::string content(3'000'000, 'q');
  io::copy_file(folder.put("a", content), folder / "b");
  EXPECT_EQ(read_file(folder / "b"), content);
  EXPECT_THAT(message_of<BadInput>([&] { read_file(folder / "b", 10); }), HasSubstr("limit of 10"));
  EXPECT_FALSE(read_file("/proc/self/status").empty());
}

TEST(OutputFolder, AppearsUnderItsNameOnCommit) {
  const TemporaryFolder folder;
  OutputFolder output(folder / "sub/out/", "r1");
  EXPECT_FALSE(output.resumed());
  EXPECT_EQ(output.work(), folder / "sub/out.partial-r1");
  write_file(output.work() / "a", "1");
  fs::create_directory(output.work() / "inner");
  write_file(output.work() / "inner/b", "2");
  EXPECT_FALSE(fs::exists(folder / "sub/out"));
  output.commit();
  EXPECT_EQ(slurp(folder / "sub/out/a"), "1");
  EXPECT_EQ(slurp(output.work() / "inner/b"), "2");
  EXPECT_FALSE(fs::exists(folder / "sub/out.partial-r1"));
}

TEST(OutputFolder, AnUnfinishedRunIsFoundAgainByItsId) {
  const TemporaryFolder folder;
  {
    write_file(OutputFolder(folder / "out", "a").work() / "x", "1");
  }
  {
    const OutputFolder other(folder / "out", "b");
    EXPECT_FALSE(other.resumed());
  }
  EXPECT_THAT(folder.names(), ElementsAre("out.partial-a"));  // b wrote nothing and is gone
  OutputFolder again(folder / "out", "a");
  EXPECT_TRUE(again.resumed());
  EXPECT_EQ(slurp(again.work() / "x"), "1");
  again.discard();
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(OutputFolder, RefusesAFolderWithContentUnlessTold) {
  const TemporaryFolder folder;
  fs::create_directory(folder / "out");
  {
    OutputFolder(folder / "out", "a").commit();
  }  // an empty folder is as good as none
  write_file(folder / "out/old", "1");
  EXPECT_THAT(message_of<UsageError>([&] { OutputFolder(folder / "out", "a"); }),
              HasSubstr("not empty"));
  EXPECT_THAT(folder.names(), ElementsAre("out"));
  EXPECT_THAT(message_of<UsageError>([&] { OutputFolder(folder / "out", "a", {"x", "y"}); }),
              HasSubstr("holds no x or y"));
  OutputFolder output(folder / "out", "a", {"x", "old"});
  write_file(output.work() / "new", "2");
  EXPECT_TRUE(fs::exists(folder / "out/old"));
  output.commit();
  EXPECT_FALSE(fs::exists(folder / "out/old"));
  EXPECT_EQ(slurp(folder / "out/new"), "2");
  EXPECT_THAT(folder.names(), ElementsAre("out"));
}

TEST(OutputFolder, RefusesIdsAndTargetsThatWouldLeadAstray) {
  const TemporaryFolder folder;
  folder.put("file", "x");
  for (const std::string_view id : {"", "../x", "a/b", "a b"}) {
    EXPECT_THROW(OutputFolder(folder / "out", id), UsageError) << id;
  }
  EXPECT_THROW(OutputFolder("", "a"), UsageError);
  EXPECT_THROW(OutputFolder("/", "a"), UsageError);
  EXPECT_THROW(OutputFolder("..", "a"), UsageError);
  EXPECT_THROW(OutputFolder(folder / "file", "a"), UsageError);
  EXPECT_THAT(message_of<IoError>([&] { OutputFolder(folder / "file/out", "a"); }),
              HasSubstr("file"));
  EXPECT_THAT(folder.names(), ElementsAre("file"));
}

TEST(OutputFolder, KeepsASecondProcessOut) {
  const TemporaryFolder folder;
  const OutputFolder output(folder / "out", "a");
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    try {
      const OutputFolder second(folder / "out", "a");
    } catch (const IoError&) {
      ::_exit(42);
    } catch (...) {
    }
    ::_exit(1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 42);
  EXPECT_TRUE(fs::exists(output.work()));
}

// FIPS 180-4 examples.
TEST(Sha256, MatchesPublishedValues) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(Sha256, DoesNotDependOnHowTheBytesAreCut) {
  const TemporaryFolder folder;
  std::string content;
  for (int i = 0; i < 3'000'000; ++i) content += static_cast<char>(i * 7);
  Sha256 hash;
  hash.update(std::string_view(content).substr(0, 1));
  EXPECT_EQ(hash.hex(), sha256_hex(content.substr(0, 1)));
  hash.update(std::string_view(content).substr(1));
  EXPECT_EQ(hash.hex(), sha256_hex(content));
  EXPECT_EQ(sha256_file(folder.put("a", content)), sha256_hex(content));
  EXPECT_THROW(sha256_file(folder / "no"), IoError);
}

TEST(Disk, TellsFreeBytesAlsoWhereNothingExistsYet) {
  const TemporaryFolder folder;
  const std::uint64_t here = free_bytes(folder.path());
  EXPECT_GT(here, 0u);
  EXPECT_GT(free_bytes(folder / "not/yet/there"), here / 2);
  EXPECT_GT(free_bytes("relative"), 0u);
}

TEST(Disk, TellsTheMemoryOfThisProcess) {
  EXPECT_GT(current_rss_bytes(), std::uint64_t{1} << 20);
  EXPECT_GE(peak_rss_bytes(), current_rss_bytes() / 2);
}

}  // namespace
}  // namespace attar::io
