#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "compress/core/errors.h"
#include "compress/io/safetensors_file.h"
#include "compress/io/sharded_safetensors.h"
#include "tests/io/temporary_folder.h"

namespace attar::io {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::message_of;
using testing::raw;
using testing::slurp;
using testing::TemporaryFolder;
namespace fs = std::filesystem;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}
std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string file_of(std::string_view header, std::string_view data) {
  return raw<std::uint64_t>(header.size()).append(header).append(data);
}

// Two tensors: "a" [2, 2] F16 at 0, "b" [3] U8 at 8.
const std::string kHeader =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]},)"
    R"("b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]}} )";
const std::string kData = "AABBCCDDxyz";

TEST(SafetensorsFile, ReadsTensorsAndMetadata) {
  const TemporaryFolder folder;
  const auto file = SafetensorsFile::open(folder.put("m", file_of(kHeader, kData)));
  ASSERT_EQ(file.tensors().size(), 2u);
  const TensorView& a = file.at("a");
  EXPECT_EQ(a.type, ElementType::f16);
  EXPECT_THAT(a.shape, ElementsAre(2, 2));
  EXPECT_EQ(text_of(a.bytes), "AABBCCDD");
  EXPECT_EQ(text_of(file.at("b").bytes), "xyz");
  EXPECT_EQ(file.at("b").offset(), 8 + kHeader.size() + 8);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.find("c"), nullptr);
  EXPECT_THAT(message_of<BadInput>([&] { file.at("c"); }), HasSubstr("no tensor 'c'"));
}

TEST(SafetensorsFile, AViewKeepsItsFileMapped) {
  const TemporaryFolder folder;
  TensorView view;
  { view = SafetensorsFile::open(folder.put("m", file_of(kHeader, kData))).at("b"); }
  fs::remove(folder / "m");
  EXPECT_EQ(text_of(view.bytes), "xyz");
}

TEST(SafetensorsFile, AllowsScalarsAndEmptyTensors) {
  const TemporaryFolder folder;
  const auto file = SafetensorsFile::open(
      folder.put("m", file_of(R"({"e":{"dtype":"F32","shape":[0,9],"data_offsets":[0,0]},)"
                              R"("s":{"dtype":"F32","shape":[],"data_offsets":[0,4]}})",
                              "1234")));
  EXPECT_TRUE(file.at("e").bytes.empty());
  EXPECT_EQ(file.at("s").bytes.size(), 4u);
  const auto none = SafetensorsFile::open(folder.put("n", file_of("{}", "")));
  EXPECT_TRUE(none.tensors().empty());
}

struct Hostile {
  std::string name;
  std::string header;
  std::string data;
  std::string part;  // of the message
};
class HostileSafetensors : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileSafetensors, IsRefusedByName) {
  const TemporaryFolder folder;
  const auto path = folder.put("m", file_of(GetParam().header, GetParam().data));
  EXPECT_THAT(message_of<BadInput>([&] { SafetensorsFile::open(path); }),
              AllOf(HasSubstr(path.string()), HasSubstr(GetParam().part)));
}

std::string one(std::string_view type, std::string_view shape, std::string_view offsets) {
  return nlohmann::json{{"t",
                         {{"dtype", type},
                          {"shape", nlohmann::json::parse(shape)},
                          {"data_offsets", nlohmann::json::parse(offsets)}}}}
      .dump();
}

INSTANTIATE_TEST_SUITE_P(
    Io, HostileSafetensors,
    ::testing::Values(
        Hostile{"not_json", "{\"a\":", "", "byte"}, Hostile{"no_brace", " {}", "", "'{'"},
        Hostile{"array", "[]", "", "'{'"}, Hostile{"not_utf8", "{\"\xFF\":{}}", "", "byte"},
        Hostile{"key_twice",
                R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
                R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                "", "stands twice"},
        Hostile{"deep", R"({"a":[[[[[1]]]]]})", "", "deeper than 4"},
        Hostile{"very_deep", "{\"a\":" + std::string(100'000, '['), "", "deeper than 4"},
        Hostile{"metadata_number", R"({"__metadata__":{"a":1}})", "", "must hold a string"},
        Hostile{"metadata_list", R"({"__metadata__":[]})", "", "__metadata__"},
        Hostile{"no_dtype", R"({"t":{"shape":[1],"data_offsets":[0,1]}})", "1", "'dtype'"},
        Hostile{"unknown_dtype", one("F12", "[1]", "[0,1]"), "1", "unknown dtype"},
        Hostile{"negative", one("U8", "[-1]", "[0,1]"), "1", "tensor 't'"},
        Hostile{"fraction", one("U8", "[1.0]", "[0,1]"), "1", "whole numbers"},
        Hostile{"huge_extent", one("U8", "[18446744073709551615]", "[0,1]"), "1", "whole"},
        Hostile{"overflow", one("F32", "[4294967296,4294967296]", "[0,1]"), "1", "overflows"},
        Hostile{"bits_overflow", one("F64", "[576460752303423488]", "[0,0]"), "", "overflows"},
        Hostile{"rank", one("U8", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[0,1]"), "1", "16"},
        Hostile{"half_byte", one("F4", "[3]", "[0,2]"), "12", "whole bytes"},
        Hostile{"too_few_bytes", one("F32", "[2]", "[0,4]"), "1234", "needs 8 bytes"},
        Hostile{"backwards", one("U8", "[1]", "[1,0]"), "1", "backwards"},
        Hostile{"three_offsets", one("U8", "[1]", "[0,1,1]"), "1", "two whole numbers"},
        Hostile{"hole", one("U8", "[1]", "[1,2]"), "12", "expected 0"},
        Hostile{"beyond", one("U8", "[2]", "[0,2]"), "1", "cut off"},
        Hostile{"offsets_overflow", one("U8", "[0]", "[18446744073709551615,18446744073709551615]"),
                "", "expected 0"},
        Hostile{"trailing", one("U8", "[1]", "[0,1]"), "12", "after the last tensor"},
        Hostile{"overlap",
                R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                R"("b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
                "123", "overlap"},
        Hostile{"long_name",
                "{\"" + std::string(4097, 'n') +
                    R"(":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
                "", "at most 4096"}),
    [](const auto& info) { return info.param.name; });

TEST(SafetensorsFile, RefusesALyingLength) {
  const TemporaryFolder folder;
  const auto refusal = [&](const std::string& bytes) {
    const auto path = folder.put("m", bytes);
    return message_of<BadInput>([&] { SafetensorsFile::open(path); });
  };
  EXPECT_THAT(refusal(""), HasSubstr("at least 8"));
  EXPECT_THAT(refusal("1234567"), HasSubstr("at least 8"));
  EXPECT_THAT(refusal(raw<std::uint64_t>(~0ull) + "{}"), HasSubstr("over the limit"));
  EXPECT_THAT(refusal(raw<std::uint64_t>(100'000'000) + "{}"), HasSubstr("cut off"));
  EXPECT_THAT(refusal(raw<std::uint64_t>(0)), HasSubstr("'{'"));
}

// Whatever is cut or flipped: a clean refusal, or the same tensors.
TEST(SafetensorsFile, SurvivesEveryTruncationAndEveryFlippedByteOfItsHeader) {
  const TemporaryFolder folder;
  const std::string whole = file_of(kHeader, kData);
  int refused = 0;
  const auto try_open = [&](const std::string& bytes) {
    try {
      const auto file = SafetensorsFile::open(folder.put("m", bytes));
      std::size_t sum = 0;
      for (const TensorView& tensor : file.tensors()) {
        for (const std::byte value : tensor.bytes) sum += std::to_integer<std::size_t>(value);
      }
      EXPECT_GT(sum, 0u);
    } catch (const BadInput& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr((folder / "m").string()));
    }
  };
  for (std::size_t length = 0; length < whole.size(); ++length) try_open(whole.substr(0, length));
  EXPECT_EQ(refused, static_cast<int>(whole.size()));
  for (std::size_t at = 0; at < whole.size() - kData.size(); ++at) {
    for (const int flip : {1, 2, 4, 16, 32, 64, 128, 255}) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ flip);
      try_open(broken);
    }
  }
}

TEST(SafetensorsWriter, SortsByAlignmentThenNameAndPadsTheHeader) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder / "m", {{"b", ElementType::u8, {3}},
                                          {"z", ElementType::f32, {1}},
                                          {"a", ElementType::f32, {}},
                                          {"h", ElementType::f16, {2}}});
  std::vector<std::string> order;
  for (const TensorPlan& tensor : writer.tensors()) order.push_back(tensor.name);
  EXPECT_THAT(order, ElementsAre("a", "z", "h", "b"));
  writer.append("b", bytes_of("xy"));  // pieces, in any order of tensors
  writer.append("a", bytes_of("aaaa"));
  writer.append("h", bytes_of("hhhh"));
  writer.append("z", bytes_of("zzzz"));
  writer.append("b", bytes_of("z"));
  EXPECT_THAT(folder.names(), ElementsAre(::testing::StartsWith("m.tmp-")));
  writer.finish();
  EXPECT_THAT(folder.names(), ElementsAre("m"));
  const std::string written = slurp(folder / "m");
  EXPECT_TRUE(written.ends_with("aaaazzzzhhhhxyz"));
  EXPECT_EQ((written.size() - 15) % 8, 0u);
  const auto file = SafetensorsFile::open(folder / "m");
  EXPECT_EQ(text_of(file.at("b").bytes), "xyz");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(written.size(), safetensors_file_bytes({{"b", ElementType::u8, {3}},
                                                    {"z", ElementType::f32, {1}},
                                                    {"a", ElementType::f32, {}},
                                                    {"h", ElementType::f16, {2}}}));
}

TEST(SafetensorsWriter, RefusesMistakesAndLeavesNoHalfFile) {
  const TemporaryFolder folder;
  {
    SafetensorsWriter writer(folder / "m", {{"a", ElementType::u8, {3}}});
    EXPECT_THROW(writer.append("b", bytes_of("x")), BadInput);
    EXPECT_THROW(writer.append("a", bytes_of("xxxx")), BadInput);
    writer.append("a", bytes_of("xx"));
    EXPECT_THAT(message_of<BadInput>([&] { writer.finish(); }),
                AllOf(HasSubstr("'a'"), HasSubstr("lacks 1 bytes")));
  }
  EXPECT_THAT(folder.names(), IsEmpty());
  using Plans = std::vector<TensorPlan>;
  for (const Plans& plans :
       {Plans{{"a", ElementType::u8, {1}}, {"a", ElementType::u8, {1}}},
        Plans{{"__metadata__", ElementType::u8, {1}}}, Plans{{"a", ElementType::u8, {-1}}},
        Plans{{"a", ElementType::f64, {1ll << 40, 1ll << 40}}},
        Plans{{"a\xFF", ElementType::u8, {1}}}}) {
    EXPECT_THROW(SafetensorsWriter(folder / "m", plans), BadInput);
  }
  EXPECT_THAT(folder.names(), IsEmpty());
}

class Sharded : public ::testing::Test {
 protected:
  void shard(std::string_view name, const std::string& tensor) {
    folder_.put(name,
                file_of("{\"" + tensor + R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                        tensor.substr(tensor.size() - 1)));
  }
  void index(const nlohmann::json& map) {
    folder_.put("model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
  }
  std::string refusal() {
    return message_of<BadInput>([&] { ShardedSafetensors::open(folder_.path()); });
  }
  TemporaryFolder folder_;
};

TEST_F(Sharded, ReadsShardsByTheirIndex) {
  shard("s1", "layers.1.b");
  shard("s2", "layers.0.a");
  shard("s3", "left.out");
  index({{"layers.1.b", "s1"}, {"layers.0.a", "s2"}});
  EXPECT_TRUE(ShardedSafetensors::present(folder_.path()));
  const auto model = ShardedSafetensors::open(folder_.path());
  ASSERT_EQ(model.tensors().size(), 2u);
  EXPECT_EQ(model.tensors()[0].name, "layers.0.a");
  EXPECT_EQ(text_of(model.at("layers.1.b").bytes), "b");
  EXPECT_EQ(model.files().size(), 3u);
  EXPECT_EQ(model.total_bytes(), 2u);
  EXPECT_THAT(message_of<BadInput>([&] { model.at("model.layers.0.a"); }),
              HasSubstr("there are: layers.0.a"));
}

TEST_F(Sharded, TheSingleFileWins) {
  shard("model.safetensors", "x");
  index({{"y", "missing"}});
  EXPECT_EQ(ShardedSafetensors::open(folder_.path()).tensors()[0].name, "x");
}

TEST_F(Sharded, WarnsOfTensorsThatTheIndexForgets) {
  folder_.put("s1", file_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                            R"("b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                            "12"));
  index({{"a", "s1"}});
  const auto model = ShardedSafetensors::open(folder_.path());
  EXPECT_EQ(model.tensors().size(), 1u);
  EXPECT_THAT(model.warnings(), ElementsAre(HasSubstr("'b' of 's1'")));
}

TEST_F(Sharded, RefusesIndexesThatLie) {
  EXPECT_THAT(refusal(), HasSubstr("holds neither"));
  for (const std::string name : {"../s1", "/etc/passwd", "a/b", "..", "", "a\\b"}) {
    index({{"a", name}});
    EXPECT_THAT(refusal(), HasSubstr("no plain file name")) << name;
  }
  index({{"a", 3}});
  EXPECT_THAT(refusal(), HasSubstr("must name a file"));
  index(nlohmann::json::object());
  EXPECT_THAT(refusal(), HasSubstr("empty"));
  index({{"a", "gone"}});
  EXPECT_THAT(refusal(), AllOf(HasSubstr("'gone'"), HasSubstr("download it again")));
  shard("s1", "a");
  shard("s2", "b");
  index({{"a", "s2"}, {"b", "s2"}});
  EXPECT_THAT(refusal(), HasSubstr("'a' is not in its shard 's2'"));
  shard("s2", "a");
  index({{"a", "s1"}, {"b", "s2"}});
  EXPECT_THAT(refusal(), HasSubstr("stands in 's1' and in 's2'"));
}

TEST_F(Sharded, RefusesALinkOutOfTheFolderButReadsTheHubsCache) {
  const TemporaryFolder elsewhere;
  shard("s1", "a");
  fs::rename(folder_ / "s1", elsewhere / "s1");
  fs::create_symlink(elsewhere / "s1", folder_ / "s1");
  index({{"a", "s1"}});
  EXPECT_THAT(refusal(), HasSubstr("outside the folder"));

  const fs::path snapshot = folder_ / "snapshots/abc";
  fs::create_directories(snapshot);
  fs::create_directories(folder_ / "blobs");
  fs::rename(elsewhere / "s1", folder_ / "blobs/123");
  fs::create_symlink("../../blobs/123", snapshot / "s1");
  fs::copy_file(folder_ / "model.safetensors.index.json",
                snapshot / "model.safetensors.index.json");
  EXPECT_EQ(ShardedSafetensors::open(snapshot).tensors().size(), 1u);
}

}  // namespace
}  // namespace attar::io
