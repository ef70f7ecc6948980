#include <gmock/gmock.h>

#include <limits>
#include <map>
#include <thread>

#include "compress/core/errors.h"
#include "compress/io/gguf_file.h"
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

std::string text(std::string_view value) { return raw<std::uint64_t>(value.size()).append(value); }
template <class T>
std::string entry(std::string_view key, GgufValueType type, T value) {
  return text(key) + raw(static_cast<std::uint32_t>(type)) + raw(value);
}
std::string tensor(std::string_view name, std::vector<std::uint64_t> ne, GgmlType type,
                   std::uint64_t offset) {
  std::string info = text(name) + raw(static_cast<std::uint32_t>(ne.size()));
  for (const std::uint64_t extent : ne) info += raw(extent);
  return info + raw(static_cast<std::uint32_t>(type)) + raw(offset);
}
std::string file_of(std::uint64_t tensors, std::uint64_t entries, const std::string& head,
                    std::string_view data, std::uint32_t version = 3) {
  std::string file = "GGUF" + raw(version) + raw(tensors) + raw(entries) + head;
  file.resize((file.size() + 31) / 32 * 32, '\0');
  return file.append(data);
}

// One string, one array of strings, two tensors: w [4, 2] F32 at 0, q [32] Q4_0 at 32.
std::string small_file() {
  const std::string names = text("names") + raw<std::uint32_t>(9) + raw<std::uint32_t>(8) +
                            raw<std::uint64_t>(2) + text("x") + text("yy");
  return file_of(2, 3,
                 text("general.architecture") + raw<std::uint32_t>(8) + text("llama") + names +
                     entry<std::uint32_t>("n", GgufValueType::u32, 7) +
                     tensor("w", {4, 2}, GgmlType::f32, 0) + tensor("q", {32}, GgmlType::q4_0, 32),
                 std::string(32, 'w') + std::string(18, 'q'));
}

TEST(GgufFile, ReadsMetadataAndTensors) {
  const TemporaryFolder folder;
  const auto file = GgufFile::open(folder.put("m", small_file()));
  EXPECT_EQ(file.version(), 3u);
  EXPECT_EQ(file.string("general.architecture"), "llama");
  EXPECT_THAT(file.strings("names"), ElementsAre("x", "yy"));
  EXPECT_EQ(file.u32("n"), 7u);
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_THAT(file.tensor("w").ne, ElementsAre(4, 2));
  EXPECT_THAT(file.tensor("w").shape(), ElementsAre(2, 4));
  EXPECT_EQ(file.tensor("w").bytes.size(), 32u);
  EXPECT_EQ(file.tensor("q").bytes[0], std::byte{'q'});
  EXPECT_EQ(file.find_tensor("z"), nullptr);
  EXPECT_THAT(message_of<BadInput>([&] { file.tensor("z"); }), HasSubstr("no tensor 'z'"));
}

TEST(GgufFile, ReadsVersionTwoAlike) {
  const TemporaryFolder folder;
  std::string bytes = small_file();
  bytes[4] = 2;
  EXPECT_EQ(GgufFile::open(folder.put("m", bytes)).u32("n"), 7u);
}

TEST(GgufFile, TypedValuesConvertOnlyWhereNothingIsLost) {
  const TemporaryFolder folder;
  GgufWriter writer(folder / "m");
  writer.set_u32("u", 3'000'000'000u);
  writer.set_i32("i", -5);
  writer.set_u64("big", 5'000'000'000u);
  writer.set_f32("f", 1.5f);
  writer.set_bool("b", true);
  writer.set_string("s", "text");
  writer.set_u32s("heads", std::vector<std::uint32_t>{4, 8});
  writer.set_i32s("types", std::vector<std::int32_t>{1, -3});
  writer.set_f32s("scores", std::vector<float>{0.5f, -2});
  writer.finish();
  const auto file = GgufFile::open(folder / "m");
  EXPECT_EQ(file.u32("u"), 3'000'000'000u);
  EXPECT_EQ(file.i64("i"), -5);
  EXPECT_EQ(file.u64("big"), 5'000'000'000u);
  EXPECT_EQ(file.f32("f"), 1.5f);
  EXPECT_TRUE(file.boolean("b"));
  EXPECT_THAT(file.i32s("types"), ElementsAre(1, -3));
  EXPECT_THAT(file.f32s("scores"), ElementsAre(0.5f, -2));
  EXPECT_THAT(file.u32_per_layer("heads", 2), ElementsAre(4, 8));
  EXPECT_THAT(file.u32_per_layer("u", 2), ElementsAre(3'000'000'000u, 3'000'000'000u));
  EXPECT_EQ(file.u32_or("none", 9), 9u);
  EXPECT_EQ(file.string_or("none", "z"), "z");

  const auto refusal = [](auto&& call) { return message_of<BadInput>(call); };
  EXPECT_THAT(refusal([&] { file.u32("i"); }), HasSubstr("key 'i'] the value -5 does not fit"));
  EXPECT_THAT(refusal([&] { file.u32("big"); }), HasSubstr("does not fit"));
  EXPECT_THAT(refusal([&] { file.u32("f"); }), HasSubstr("holds f32, wanted a whole number"));
  EXPECT_THAT(refusal([&] { file.u32("b"); }), HasSubstr("holds bool"));
  EXPECT_THAT(refusal([&] { file.f32("u"); }), HasSubstr("wanted a real number"));
  EXPECT_THAT(refusal([&] { file.string("u"); }), HasSubstr("wanted a string"));
  EXPECT_THAT(refusal([&] { file.boolean_or("u", true); }), HasSubstr("wanted bool"));
  EXPECT_THAT(refusal([&] { file.strings("types"); }), HasSubstr("holds array of i32"));
  EXPECT_THAT(refusal([&] { file.i32s("scores"); }), HasSubstr("whole number"));
  EXPECT_THAT(refusal([&] { file.u32_per_layer("heads", 3); }), HasSubstr("holds 2 numbers"));
  EXPECT_THAT(refusal([&] { file.u32("none"); }),
              AllOf(HasSubstr((folder / "m").string()), HasSubstr("'none'"), HasSubstr("missing")));
}

struct Hostile {
  std::string name;
  std::string bytes;
  std::string part;  // of the message
};
class HostileGguf : public ::testing::TestWithParam<Hostile> {};

TEST_P(HostileGguf, IsRefusedByName) {
  const TemporaryFolder folder;
  const auto path = folder.put("m", GetParam().bytes);
  EXPECT_THAT(message_of<BadInput>([&] { GgufFile::open(path); }),
              AllOf(HasSubstr(path.string()), HasSubstr(GetParam().part)));
}

constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();
std::string array(std::uint32_t element, std::uint64_t count) {
  return text("k") + raw<std::uint32_t>(9) + raw(element) + raw(count);
}
std::string alignment(std::uint32_t value) {
  return entry("general.alignment", GgufValueType::u32, value);
}
std::string one(const std::string& info, std::size_t data = 64) {
  return file_of(1, 0, info, std::string(data, 'd'));
}

INSTANTIATE_TEST_SUITE_P(
    Io, HostileGguf,
    ::testing::Values(
        Hostile{"empty", "", "magic"}, Hostile{"magic", "GGML" + std::string(60, '\0'), "no GGUF"},
        Hostile{"version_1", file_of(0, 0, "", "", 1), "version 1"},
        Hostile{"version_4", file_of(0, 0, "", "", 4), "version 4"},
        Hostile{"big_endian", file_of(0, 0, "", "", 0x03000000), "big-endian"},
        Hostile{"tensor_count", file_of(kHuge, 0, "", ""), "cannot hold"},
        Hostile{"entry_count", file_of(0, kHuge, "", ""), "cannot hold"},
        Hostile{"entry_count_small", file_of(0, 1, "", ""), "cannot hold 1"},
        Hostile{"key_length", file_of(0, 1, raw(kHuge) + std::string(40, 'k'), ""), "limit"},
        Hostile{"empty_key", file_of(0, 1, entry<std::uint64_t>("", GgufValueType::u64, 1), ""),
                "empty"},
        Hostile{"value_type", file_of(0, 1, text("k") + raw<std::uint32_t>(13) + raw(kHuge), ""),
                "unknown value type 13"},
        Hostile{"bool_two", file_of(0, 1, entry<std::uint8_t>("k", GgufValueType::boolean, 2), ""),
                "0 or 1"},
        Hostile{"string_length",
                file_of(0, 1, text("k") + raw<std::uint32_t>(8) + raw<std::uint64_t>(1 << 20), ""),
                "cut off"},
        Hostile{"array_count", file_of(0, 1, array(4, kHuge), ""), "cannot hold"},
        Hostile{"array_of_strings", file_of(0, 1, array(8, kHuge / 8), ""), "cannot hold"},
        Hostile{"array_type", file_of(0, 1, array(99, 1), ""), "element type 99"},
        Hostile{"nested", file_of(0, 1, array(9, 1) + raw(kHuge), ""), "holds arrays"},
        Hostile{"key_twice",
                file_of(0, 2,
                        entry<std::uint32_t>("k", GgufValueType::u32, 1) +
                            entry<std::uint32_t>("k", GgufValueType::u32, 2),
                        ""),
                "'k' stands twice"},
        Hostile{"alignment_0", file_of(0, 1, alignment(0), ""), "power of two"},
        Hostile{"alignment_48", file_of(0, 1, alignment(48), ""), "power of two"},
        Hostile{"alignment_huge", file_of(0, 1, alignment(1u << 31), ""), "power of two"},
        Hostile{
            "alignment_type",
            file_of(0, 1, entry<std::uint64_t>("general.alignment", GgufValueType::u64, 32), ""),
            "power of two"},
        Hostile{"name_length", one(tensor(std::string(64, 'n'), {4}, GgmlType::f32, 0)), "63"},
        Hostile{"rank", one(tensor("t", {1, 1, 1, 1, 1}, GgmlType::f32, 0)), "rank 5"},
        Hostile{"zero_extent", one(tensor("t", {0}, GgmlType::f32, 0)), "extent 0"},
        Hostile{"huge_extent", one(tensor("t", {kHuge}, GgmlType::f32, 0)), "extent"},
        Hostile{"overflow", one(tensor("t", {1ull << 40, 1ull << 40}, GgmlType::f32, 0)),
                "63 bits"},
        Hostile{"type", one(tensor("t", {4}, static_cast<GgmlType>(5), 0)), "type number 5"},
        Hostile{"block", one(tensor("t", {33}, GgmlType::q4_0, 0)), "multiple of 32"},
        Hostile{"first_offset", one(tensor("t", {4}, GgmlType::f32, 32)), "expected 0"},
        Hostile{
            "offset_order",
            file_of(2, 0, tensor("a", {4}, GgmlType::f32, 0) + tensor("b", {4}, GgmlType::f32, 16),
                    std::string(64, 'd')),
            "expected 32"},
        Hostile{
            "tensor_twice",
            file_of(2, 0, tensor("a", {4}, GgmlType::f32, 0) + tensor("a", {4}, GgmlType::f32, 32),
                    std::string(64, 'd')),
            "stands twice"},
        Hostile{"cut_data", one(tensor("t", {17}, GgmlType::f32, 0), 67), "ends at byte"},
        Hostile{"no_data", one(tensor("t", {1ull << 30}, GgmlType::f32, 0)), "cut off"}),
    [](const auto& info) { return info.param.name; });

// Whatever is cut or flipped: a clean refusal, or bytes that lie in the file.
TEST(GgufFile, SurvivesEveryTruncationAndEveryFlippedByteOfItsHeader) {
  const TemporaryFolder folder;
  const std::string whole = small_file();
  int refused = 0;
  const auto try_open = [&](const std::string& bytes) {
    try {
      const auto file = GgufFile::open(folder.put("m", bytes));
      std::size_t sum = 0;
      for (const GgufEntry& found : file.entries()) sum += found.key.size() + found.raw.size();
      for (const GgufTensor& found : file.tensors()) {
        for (const std::byte value : found.bytes) sum += std::to_integer<std::size_t>(value);
      }
      EXPECT_GT(sum, 0u);
    } catch (const BadInput& error) {
      ++refused;
      EXPECT_THAT(error.what(), HasSubstr((folder / "m").string()));
    }
  };
  for (std::size_t length = 0; length < whole.size(); ++length) try_open(whole.substr(0, length));
  EXPECT_EQ(refused, static_cast<int>(whole.size()));
  for (std::size_t at = 0; at < whole.size() - 50; ++at) {
    for (const int flip : {1, 2, 4, 16, 32, 64, 128, 255}) {
      std::string broken = whole;
      broken[at] = static_cast<char>(broken[at] ^ flip);
      try_open(broken);
    }
  }
}

TEST(GgufWriter, WritesTheBytesOfTheSpecification) {
  const TemporaryFolder folder;
  GgufWriter writer(folder / "m");
  writer.set_string("general.architecture", "llama");
  writer.set_strings("names", std::vector<std::string>{"x", "yy"});
  writer.set_u32("n", 7);
  writer.declare("w", GgmlType::f32, {4, 2});
  writer.declare("q", GgmlType::q4_0, {32});
  const std::string w(32, 'w');
  const std::string q(18, 'q');
  writer.append("q", std::as_bytes(std::span(q)).first(10));  // any order, in pieces
  writer.append("w", std::as_bytes(std::span(w)));
  writer.append("q", std::as_bytes(std::span(q)).subspan(10));
  EXPECT_FALSE(std::filesystem::exists(folder / "m"));
  writer.finish();
  std::string expected = small_file();
  expected.resize((expected.size() + 31) / 32 * 32, '\0');
  EXPECT_EQ(slurp(folder / "m"), expected);
  EXPECT_EQ(writer.file_bytes(), expected.size());
}

// Two tensors in pieces from the back, by two threads at once.
TEST(GgufWriter, WritesPiecesInAnyOrder) {
  const TemporaryFolder folder;
  const auto written = [&](const char* name, bool whole) {
    GgufWriter writer(folder / name);
    writer.declare("a", GgmlType::f32, {1024});
    writer.declare("b", GgmlType::f32, {1024});
    std::vector<std::byte> bytes(4096);
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7 % 251);
    writer.begin();
    const auto pieces = [&](const char* tensor) {
      for (std::int64_t at = 4096 - 256; at >= 0; at -= 256) {
        writer.write_at(tensor, static_cast<std::uint64_t>(at),
                        std::span(bytes).subspan(static_cast<std::size_t>(at), 256));
      }
    };
    if (whole) {
      writer.append("a", bytes);
      writer.append("b", bytes);
    } else {
      std::thread first(pieces, "a"), second(pieces, "b");
      first.join();
      second.join();
    }
    writer.finish();
    return slurp(folder / name);
  };
  EXPECT_EQ(written("pieces", false), written("whole", true));
}

TEST(GgufWriter, RefusesPiecesThatDoNotFit) {
  const TemporaryFolder folder;
  GgufWriter writer(folder / "m");
  writer.declare("a", GgmlType::f32, {8});
  const std::vector<std::byte> bytes(16);
  EXPECT_THROW(writer.write_at("a", 0, bytes), BadInput);  // before begin()
  writer.begin();
  EXPECT_THROW(writer.write_at("b", 0, bytes), BadInput);
  EXPECT_THROW(writer.write_at("a", 20, bytes), BadInput);
  EXPECT_THROW(writer.write_at("a", 40, bytes), BadInput);
  writer.write_at("a", 16, bytes);
  EXPECT_THROW(writer.finish(), BadInput);  // half of it is missing
}

TEST(GgufWriter, CopiesEntriesOfAnotherFileByteForByte) {
  const TemporaryFolder folder;
  const auto source = GgufFile::open(folder.put("m", small_file()));
  GgufWriter writer(folder / "copy");
  for (const GgufEntry& found : source.entries()) writer.set_entry(found);
  for (const GgufTensor& found : source.tensors()) writer.declare(found.name, found.type, found.ne);
  for (const GgufTensor& found : source.tensors()) writer.append(found.name, found.bytes);
  writer.finish();
  EXPECT_TRUE(slurp(folder / "copy").starts_with(small_file()));
}

TEST(GgufWriter, HonoursAnotherAlignment) {
  const TemporaryFolder folder;
  GgufWriter writer(folder / "m");
  writer.declare("a", GgmlType::i8, {3});
  writer.declare("b", GgmlType::i8, {3});
  writer.set_u32("general.alignment", 64);
  writer.append("a", std::as_bytes(std::span("aaa", 3)));
  writer.append("b", std::as_bytes(std::span("bbb", 3)));
  writer.finish();
  const auto file = GgufFile::open(folder / "m");
  EXPECT_EQ(file.alignment(), 64u);
  EXPECT_EQ(file.data_offset() % 64, 0u);
  EXPECT_EQ(file.tensor("b").bytes.data() - file.tensor("a").bytes.data(), 64);
  EXPECT_EQ(file.tensor("b").bytes[2], std::byte{'b'});
}

TEST(GgufWriter, RefusesMistakesAndLeavesNoHalfFile) {
  const TemporaryFolder folder;
  {
    GgufWriter writer(folder / "m");
    writer.set_u32("k", 1);
    EXPECT_THROW(writer.set_f32("k", 1), BadInput);
    EXPECT_THROW(writer.set_f32("", 1), BadInput);
    EXPECT_THROW(writer.set_u32("general.alignment", 33), BadInput);
    EXPECT_THROW(writer.set_i32("general.alignment", 32), BadInput);
    EXPECT_THROW(writer.declare("t", GgmlType::q4_k, {128}), BadInput);
    EXPECT_THROW(writer.declare("t", GgmlType::f32, {0}), BadInput);
    EXPECT_THROW(writer.declare("t", GgmlType::f32, {1, 1, 1, 1, 1}), BadInput);
    EXPECT_THROW(writer.declare(std::string(64, 't'), GgmlType::f32, {1}), BadInput);
    writer.declare("t", GgmlType::i8, {3});
    EXPECT_THROW(writer.declare("t", GgmlType::i8, {3}), BadInput);
    EXPECT_THROW(writer.append("u", {}), BadInput);
    writer.append("t", std::as_bytes(std::span("xx", 2)));
    EXPECT_THROW(writer.append("t", std::as_bytes(std::span("xx", 2))), BadInput);
    EXPECT_THROW(writer.set_u32("late", 1), BadInput);
    EXPECT_THROW(writer.declare("late", GgmlType::i8, {3}), BadInput);
    EXPECT_THAT(message_of<BadInput>([&] { writer.finish(); }), HasSubstr("lacks 1 bytes"));
  }
  EXPECT_THAT(folder.names(), IsEmpty());
}

TEST(GgmlType, NamesAndNumbersFindTheSameRow) {
  for (const GgmlTypeInfo& row : ggml_types()) {
    EXPECT_EQ(find_ggml_type(row.name), &row);
    EXPECT_EQ(find_ggml_type(static_cast<std::uint32_t>(row.type)), &row);
  }
  EXPECT_EQ(find_ggml_type("q4_k")->bytes, 144u);
  EXPECT_EQ(find_ggml_type("Q9"), nullptr);
  EXPECT_EQ(ggml_type_of(ElementType::bf16), GgmlType::bf16);
  EXPECT_EQ(element_type_of(GgmlType::q4_0), std::nullopt);
  EXPECT_EQ(ggml_tensor_bytes(GgmlType::q6_k, std::vector<std::int64_t>{512, 3}), 6u * 210);
}

}  // namespace
}  // namespace attar::io
