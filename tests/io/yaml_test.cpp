#include "compress/io/yaml.h"

#include <gmock/gmock.h>

#include "compress/core/errors.h"
#include "tests/io/temporary_folder.h"

namespace attar::io {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::message_of;
using testing::TemporaryFolder;

std::string refusal(std::string_view text) {
  return message_of<BadInput>([&] { parse_yaml(text, "r.yaml"); });
}

TEST(Yaml, ReadsARecipe) {
  const json recipe = parse_yaml(R"(
version: 1
model: models/SmolLM2-135M
calibration: {text: data/c4.txt, sequences: 128}
passes:
  - quantize.awq:  {}
  - quantize.gptq: {bits: 4, damping: 1e-2, layers: "mlp.*"}
note: |
  two
  lines
)",
                                 "t");
  EXPECT_EQ(recipe, json::parse(R"({"version": 1, "model": "models/SmolLM2-135M",
    "calibration": {"text": "data/c4.txt", "sequences": 128},
    "passes": [{"quantize.awq": {}},
               {"quantize.gptq": {"bits": 4, "damping": 0.01, "layers": "mlp.*"}}],
    "note": "two\nlines\n"})"));
}

struct Plain {
  std::string text;
  json value;
};
class PlainScalar : public ::testing::TestWithParam<Plain> {};

TEST_P(PlainScalar, FollowsTheCoreSchema) {
  const json value = parse_yaml(GetParam().text, "t");
  EXPECT_EQ(value, GetParam().value) << GetParam().text;
  EXPECT_EQ(value.type(), GetParam().value.type()) << GetParam().text;
}

INSTANTIATE_TEST_SUITE_P(
    Yaml, PlainScalar,
    ::testing::Values(Plain{"7", 7u}, Plain{"-7", -7}, Plain{"+7", 7u}, Plain{"007", 7u},
                      Plain{"0x1F", 31u}, Plain{"0o17", 15u},
                      Plain{"18446744073709551615", 18446744073709551615u},
                      Plain{"-9223372036854775808", std::numeric_limits<std::int64_t>::min()},
                      Plain{"1.5", 1.5}, Plain{"-.5", -0.5}, Plain{"5.", 5.0}, Plain{"1e3", 1000.0},
                      Plain{"1E-3", 0.001}, Plain{"true", true}, Plain{"False", false},
                      Plain{"null", nullptr}, Plain{"~", nullptr}, Plain{"", nullptr},
                      Plain{"yes", "yes"}, Plain{"on", "on"}, Plain{"2024-01-02", "2024-01-02"},
                      Plain{"1_000", "1_000"}, Plain{"0x", "0x"}, Plain{"1e", "1e"},
                      Plain{".", "."}, Plain{"'7'", "7"}, Plain{"\"true\"", "true"},
                      Plain{"!!str 7", "7"}, Plain{"!!float 7", 7.0}, Plain{"''", ""},
                      Plain{"\"\\x41\\n\"", "A\n"}));

TEST(Yaml, NamesLineAndColumn) {
  EXPECT_THAT(refusal("a: 1\nb: [1, 2\nc: 3\n"), HasSubstr("[r.yaml] line "));
  EXPECT_THAT(refusal("a: 1\nb: 2\n a: 3\n"), HasSubstr("line 3"));
  EXPECT_THAT(refusal("a: 1\nb: 2\na: 3\n"),
              AllOf(HasSubstr("line 3, column 1"), HasSubstr("'a' stands twice")));
  EXPECT_THAT(refusal("x: .inf"), AllOf(HasSubstr("line 1, column 4"), HasSubstr("finite")));
  EXPECT_THAT(refusal("x: 18446744073709551616"), HasSubstr("beyond 64 bits"));
  EXPECT_THAT(refusal("x: -9223372036854775809"), HasSubstr("beyond 64 bits"));
  EXPECT_THAT(refusal("x: 1e999"), HasSubstr("range of a double"));
}

TEST(Yaml, RefusesWhatJsonCannotSay) {
  EXPECT_THAT(refusal("[a, b]: 1"), HasSubstr("a key must be text"));
  EXPECT_THAT(refusal("{a: 1}: 1"), HasSubstr("a key must be text"));
  EXPECT_THAT(refusal("~: 1"), HasSubstr("a key must be text"));
  EXPECT_THAT(refusal("a: !thing 3"), HasSubstr("tag"));
  EXPECT_THAT(refusal("a: !!python/object {}"), HasSubstr("tag"));
  EXPECT_THAT(refusal("a: !!int x"), HasSubstr("tag"));
  EXPECT_THAT(refusal("a: 1\n---\nb: 2\n"), HasSubstr("more than one"));
  EXPECT_THAT(refusal("a: \xFF"), HasSubstr("byte 3 is not UTF-8"));
  EXPECT_THAT(refusal(std::string("a: 1\n\x04 b: 2")), HasSubstr("control character 4"));
}

TEST(Yaml, RefusesNestingBeyondTheLimitAtAnyDepth) {
  EXPECT_NO_THROW(parse_yaml(std::string(64, '[') + std::string(64, ']'), "t"));
  EXPECT_THAT(refusal(std::string(65, '[') + std::string(65, ']')), HasSubstr("deeper than 64"));
  EXPECT_THAT(refusal(std::string(200'000, '[')), HasSubstr("line 1"));
  EXPECT_THAT(refusal(std::string(200'000, '{')), HasSubstr("line 1"));
  std::string dashes;
  std::string block;
  std::string maps;
  std::string pairs = "[";
  for (int i = 0; i < 10'000; ++i) {
    dashes += "- ";
    pairs += "a: [";
    maps += "? ";
  }
  for (int i = 0; i < 1'000; ++i) block += std::string(i, ' ') + "a:\n";
  EXPECT_THAT(refusal(dashes + "x"), HasSubstr("deeper than 64"));
  EXPECT_THAT(refusal(block), HasSubstr("deeper than 64"));
  EXPECT_THAT(refusal(pairs), HasSubstr("line 1"));
  EXPECT_THAT(refusal(maps), HasSubstr("line 1"));
}

TEST(Yaml, AliasesAreCopied) {
  EXPECT_EQ(parse_yaml("a: &x {b: [1]}\nc: *x\n&k d: *k\n", "t"),
            json::parse(R"({"a": {"b": [1]}, "c": {"b": [1]}, "d": "d"})"));
  EXPECT_EQ(parse_yaml("a: &x {}\nb: *x\nc: &y []\nd: [*y, 1]\n", "t"),
            json::parse(R"({"a": {}, "b": {}, "c": [], "d": [[], 1]})"));
  EXPECT_THAT(refusal("a: &x [*x]"), HasSubstr("not complete"));
  EXPECT_THAT(refusal("a: *nowhere"), HasSubstr("line 1"));
}

// Each line holds the one before it nine times: 9^9 values from 300 bytes.
TEST(Yaml, RefusesABombOfAliases) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 10; ++i) {
    const std::string one = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + one;
    for (int j = 1; j < 9; ++j) bomb += ", " + one;
    bomb += "]\n";
  }
  EXPECT_THAT(refusal(bomb), HasSubstr("values"));
}

TEST(Yaml, FilesAreReadAndMissingOnesNamed) {
  const TemporaryFolder folder;
  EXPECT_EQ(load_yaml(folder.put("r.yaml", "a: 1\n"))["a"], 1);
  EXPECT_TRUE(load_yaml(folder.put("empty.yaml", "")).is_null());
  EXPECT_THAT(message_of<IoError>([&] { load_yaml(folder / "no.yaml"); }), HasSubstr("no.yaml"));
  EXPECT_THAT(message_of<IoError>([&] { load_yaml(folder.path()); }), HasSubstr("directory"));
}

}  // namespace
}  // namespace attar::io
