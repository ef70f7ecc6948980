#include "compress/io/hdf5_store.h"

#include <gmock/gmock.h>
#include <sys/wait.h>

#include <csignal>
#include <numeric>

#include "compress/core/errors.h"
#include "tests/io/temporary_folder.h"

namespace attar::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::slurp;
using testing::TemporaryFolder;
using Mode = Hdf5Store::Mode;
using Shape = std::vector<std::int64_t>;

template <class T>
class StoredNumber : public ::testing::Test {};
using Numbers =
    ::testing::Types<float, double, std::int64_t, std::int32_t, std::uint16_t, std::uint8_t>;
TYPED_TEST_SUITE(StoredNumber, Numbers);

TYPED_TEST(StoredNumber, ReadsBackAsWritten) {
  const TemporaryFolder folder;
  const std::vector<TypeParam> values{1, 2, 3, 4, 5, std::numeric_limits<TypeParam>::max()};
  {
    Hdf5Store store(folder / "s.h5", Mode::create);
    store.write<TypeParam>("layers/0/x", values, Shape{2, 3});
    store.write<TypeParam>("empty", {}, Shape{0, 3});
    store.write<TypeParam>("scalar", std::span(values).first(1), Shape{});
  }
  const Hdf5Store store(folder / "s.h5", Mode::read);
  EXPECT_EQ(store.read<TypeParam>("layers/0/x"), values);
  EXPECT_THAT(store.shape("layers/0/x"), ElementsAre(2, 3));
  EXPECT_TRUE(store.read<TypeParam>("empty").empty());
  EXPECT_THAT(store.read<TypeParam>("scalar"), ElementsAre(TypeParam{1}));
  std::vector<TypeParam> short_one(5);
  EXPECT_THROW(store.read_into<TypeParam>("layers/0/x", short_one), BadInput);
}

TEST(Hdf5Store, RowsAreReadInPieces) {
  const TemporaryFolder folder;
  Hdf5Store store(folder / "s.h5", Mode::update);
  store.write<float>("x", std::vector<float>{0, 0, 1, 2, 3, 4, 0, 0}, Shape{4, 2});
  std::vector<float> row(2);
  store.read_rows<float>("x", 2, row);
  EXPECT_THAT(row, ElementsAre(3, 4));
  EXPECT_THAT(message_of<BadInput>([&] { store.read_rows<float>("x", 4, row); }),
              HasSubstr("4 rows of 2"));
  EXPECT_THROW(store.read_rows<float>("x", -1, row), BadInput);
  std::vector<float> uneven(3);
  EXPECT_THROW(store.read_rows<float>("x", 0, uneven), BadInput);
}

TEST(Hdf5Store, ManyRowsTakeManyChunks) {
  const TemporaryFolder folder;
  std::vector<std::int32_t> values(1 << 20);  // 4 MiB
  std::iota(values.begin(), values.end(), 0);
  Hdf5Store store(folder / "s.h5", Mode::create);
  store.write<std::int32_t>("x", values, Shape{1 << 10, 1 << 10});
  store.write<std::int32_t>("wide", values, Shape{1, 1 << 20});
  store.flush();
  EXPECT_EQ(store.read<std::int32_t>("x"), values);
  EXPECT_EQ(store.read<std::int32_t>("wide"), values);
  std::vector<std::int32_t> row(1 << 10);
  store.read_rows<std::int32_t>("x", 777, row);
  EXPECT_EQ(row.front(), 777 << 10);
}

TEST(Hdf5Store, ABitThatFellOverIsNoticed) {
  const TemporaryFolder folder;
  const std::vector<double> values(1000, 1.0 / 3);
  {
    Hdf5Store store(folder / "s.h5", Mode::create);
    store.write<double>("x", values, Shape{1000});
  }
  std::string bytes = slurp(folder / "s.h5");
  const std::string one(reinterpret_cast<const char*>(values.data()), sizeof(double));
  bytes[bytes.rfind(one)] ^= 1;
  folder.put("s.h5", bytes);
  const Hdf5Store store(folder / "s.h5", Mode::read);
  EXPECT_THAT(message_of<IoError>([&] { store.read<double>("x"); }),
              AllOf(HasSubstr("'x'"), HasSubstr("hecksum"), HasSubstr("remove the file")));
}

TEST(Hdf5Store, AttributesStandOnGroupsDatasetsAndTheRoot) {
  const TemporaryFolder folder;
  {
    Hdf5Store store(folder / "s.h5", Mode::create);
    store.set_attribute("", "key", "old");
    store.set_attribute("", "key", std::string_view("n\xC3\xA9w"));
    store.set_attribute("a/b", "tokens", std::int64_t{1} << 40);
    store.set_attribute("a/b", "mean", 0.1);
    store.set_attribute("a/b", "empty", "");
    store.set_attribute("a", "long", std::string(100'000, 'l'));
  }
  const Hdf5Store store(folder / "s.h5", Mode::read);
  EXPECT_EQ(store.string_attribute("", "key"), "n\xC3\xA9w");
  EXPECT_EQ(store.int_attribute("a/b", "tokens"), std::int64_t{1} << 40);
  EXPECT_EQ(store.double_attribute("a/b", "mean"), 0.1);
  EXPECT_EQ(store.string_attribute("a/b", "empty"), "");
  EXPECT_EQ(store.string_attribute("a", "long").size(), 100'000u);
  EXPECT_TRUE(store.has_attribute("a/b", "mean"));
  EXPECT_FALSE(store.has_attribute("a/b", "none"));
  EXPECT_FALSE(store.has_attribute("none", "mean"));
  EXPECT_THROW(store.int_attribute("a/b", "none"), BadInput);
  EXPECT_THROW(store.int_attribute("a/b", "mean"), BadInput);
  EXPECT_THROW(store.string_attribute("a/b", "mean"), BadInput);
}

TEST(Hdf5Store, GroupsAppearWholeOrNotAtAll) {
  const TemporaryFolder folder;
  Hdf5Store store(folder / "s.h5", Mode::update);
  const auto fill = [](double value) {
    return [value](Hdf5Store& target, const std::string& below) {
      target.write<double>(below + "/x", std::vector<double>{value}, Shape{1});
      target.set_attribute(below, "v", value);
    };
  };
  store.write_group("layers/0", fill(1));
  store.write_group("layers/0", fill(2));  // replaces
  store.write_group("layers/1", fill(3));
  EXPECT_THROW(store.write_group("layers/2",
                                 [&](Hdf5Store& target, const std::string& below) {
                                   fill(4)(target, below);
                                   throw NumericRefusal("no");
                                 }),
               NumericRefusal);
  EXPECT_THAT(store.children("layers"), ElementsAre("0", "1"));
  EXPECT_THAT(store.read<double>("layers/0/x"), ElementsAre(2));
  EXPECT_EQ(store.double_attribute("layers/0", "v"), 2);
  store.remove("layers/0");
  store.remove("layers/0");
  EXPECT_FALSE(store.exists("layers/0/x"));
  EXPECT_TRUE(store.exists("layers/1/x"));
}

TEST(Hdf5Store, MistakesAreNamed) {
  const TemporaryFolder folder;
  Hdf5Store store(folder / "s.h5", Mode::create);
  store.write<float>("x", std::vector<float>{1}, Shape{1});
  EXPECT_THROW(store.write<float>("x", std::vector<float>{1}, Shape{1}), BadInput);
  EXPECT_THROW(store.write<float>("y", std::vector<float>{1}, Shape{2}), BadInput);
  EXPECT_THROW(store.write<float>("y", std::vector<float>{1}, Shape{-1}), BadInput);
  EXPECT_THAT(message_of<BadInput>([&] { store.read<double>("x"); }),
              HasSubstr("another element type"));
  EXPECT_THAT(message_of<BadInput>([&] { store.read<float>("a/b"); }), HasSubstr("no 'a/b'"));
  EXPECT_THROW(store.write<float>("x/y", std::vector<float>{1}, Shape{1}), IoError);
  EXPECT_THROW(store.read<float>(""), IoError);
  store.flush();
  Hdf5Store reader(folder / "s.h5", Mode::read);
  EXPECT_THROW(reader.remove("x"), UsageError);
  EXPECT_THAT(message_of<IoError>([&] { Hdf5Store(folder / "no.h5", Mode::read); }),
              HasSubstr("No such file"));
  EXPECT_THAT(message_of<IoError>([&] { Hdf5Store("/nowhere/s.h5", Mode::create); }),
              HasSubstr("/nowhere/s.h5"));
}

TEST(Hdf5Store, TellsWhetherAFileIsAWholeStore) {
  const TemporaryFolder folder;
  EXPECT_FALSE(Hdf5Store::readable(folder / "none"));
  EXPECT_FALSE(Hdf5Store::readable(folder.put("text", "no store")));
  EXPECT_FALSE(Hdf5Store::readable(folder.path()));
  {
    Hdf5Store store(folder / "s.h5", Mode::create);
    store.write<double>("a/x", std::vector<double>(1000, 1.0), Shape{1000});
  }
  EXPECT_TRUE(Hdf5Store::readable(folder / "s.h5"));
  const std::string whole = slurp(folder / "s.h5");
  for (std::size_t length = 0; length < whole.size(); length += 97) {
    EXPECT_FALSE(Hdf5Store::readable(folder.put("cut", whole.substr(0, length)))) << length;
  }
}

// The child dies inside write_group, with half a group written.
TEST(Hdf5Store, AKilledWriterLeavesAStoreThatIsReportedUnusable) {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Hdf5Store store(folder / "s.h5", Mode::update);
    store.write_group("done", [](Hdf5Store& target, const std::string& below) {
      target.write<double>(below + "/x", std::vector<double>{1}, Shape{1});
    });
    if (!Hdf5Store::readable(folder / "s.h5")) ::_exit(1);
    store.write_group("torn", [](Hdf5Store& target, const std::string& below) {
      target.write<double>(below + "/x", std::vector<double>{1}, Shape{1});
      ::kill(::getpid(), SIGKILL);
    });
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  EXPECT_FALSE(Hdf5Store::readable(folder / "s.h5"));
  EXPECT_THAT(message_of<IoError>([&] { Hdf5Store(folder / "s.h5", Mode::update); }),
              AllOf(HasSubstr("s.h5"), HasSubstr("remove the file")));
  Hdf5Store(folder / "s.h5", Mode::create);
  EXPECT_TRUE(Hdf5Store::readable(folder / "s.h5"));
}

// Between two groups the file is closed, so dying there costs nothing.
TEST(Hdf5Store, AWriterKilledBetweenGroupsLeavesAWholeStore) {
  const TemporaryFolder folder;
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Hdf5Store store(folder / "s.h5", Mode::update);
    store.write_group("done", [](Hdf5Store& target, const std::string& below) {
      target.write<double>(below + "/x", std::vector<double>{1}, Shape{1});
    });
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(Hdf5Store::readable(folder / "s.h5"));
  EXPECT_THAT(Hdf5Store(folder / "s.h5", Mode::update).read<double>("done/x"), ElementsAre(1));
}

}  // namespace
}  // namespace attar::io
