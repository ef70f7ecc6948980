#include "compress/io/json.h"

#include <gmock/gmock.h>

#include "compress/core/errors.h"
#include "tests/io/temporary_folder.h"

namespace attar::io {
namespace {

using ::testing::HasSubstr;
using testing::message_of;
using testing::slurp;
using testing::TemporaryFolder;

std::string refusal(std::string_view text, const TextLimits& limits = {}) {
  return message_of<BadInput>([&] { parse_json(text, "here.json", limits); });
}

TEST(Json, ReadsEveryKindOfValue) {
  const auto value = parse_json(
      R"({"a": [1, -2, 2.5, true, null, "\u00e9\n"], "b": {}, "c": 18446744073709551615})", "t");
  EXPECT_EQ(value["a"][0], 1);
  EXPECT_EQ(value["a"][1], -2);
  EXPECT_EQ(value["a"][2], 2.5);
  EXPECT_EQ(value["a"][3], true);
  EXPECT_TRUE(value["a"][4].is_null());
  EXPECT_EQ(value["a"][5], "\xC3\xA9\n");
  EXPECT_TRUE(value["b"].is_object());
  EXPECT_EQ(value["c"], 18446744073709551615u);
  EXPECT_EQ(parse_json(" 7 ", "t"), 7);
}

TEST(Json, NamesThePlaceOfASyntaxError) {
  EXPECT_THAT(refusal(R"({"a": 1,})"), HasSubstr("[here.json] no valid JSON at byte 9"));
  EXPECT_THAT(refusal(""), HasSubstr("byte 1"));
  EXPECT_THAT(refusal("[1] 2"), HasSubstr("byte 5"));
  EXPECT_THAT(refusal("\"\xFF\""), HasSubstr("byte 2"));
  EXPECT_THAT(refusal("[NaN]"), HasSubstr("no valid JSON"));
  EXPECT_THAT(refusal("[1e999]"), HasSubstr("number overflow"));
}

TEST(Json, RefusesAKeyThatStandsTwice) {
  EXPECT_THAT(refusal(R"({"x": {"a": 1, "b": 2, "a": 3}})"),
              AllOf(HasSubstr("'a' stands twice"), HasSubstr("near byte 26")));
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": 1, "b": {"a": 2}}])", "t"));
}

TEST(Json, RefusesNestingBeyondTheLimitAtAnyDepth) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_NO_THROW(parse_json(nested(64), "t"));
  EXPECT_THAT(refusal(nested(65)), HasSubstr("deeper than 64"));
  EXPECT_THAT(refusal(nested(1'000'000)), HasSubstr("deeper than 64"));
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += "{\"a\":";
  EXPECT_THAT(refusal(objects), HasSubstr("deeper than 64"));
}

TEST(Json, RefusesTextsOverTheLimits) {
  EXPECT_THAT(refusal("[1,2,3]", {.max_bytes = 6}), HasSubstr("over the limit of 6"));
  EXPECT_THAT(refusal("[1,2,3]", {.max_values = 3}), HasSubstr("more than 3 values"));
  EXPECT_NO_THROW(parse_json("[1,2,3]", "t", {.max_bytes = 7, .max_values = 4}));
}

TEST(Json, WrittenFilesReadBackAndAreEqualForEqualValues) {
  const TemporaryFolder folder;
  const auto value = parse_json(R"({"b": [1, 2.25, "x"], "a": null})", "t");
  write_json(folder / "a.json", value);
  write_json(folder / "b.json", load_json(folder / "a.json"));
  EXPECT_EQ(slurp(folder / "a.json"), slurp(folder / "b.json"));
  EXPECT_EQ(load_json(folder / "b.json"), value);
  EXPECT_EQ(slurp(folder / "a.json").find("\"a\""), 4u);
}

TEST(Json, OrderedObjectsKeepTheirOrder) {
  const TemporaryFolder folder;
  nlohmann::ordered_json value;
  value["z"] = 1;
  value["a"] = 2;
  write_json(folder / "a.json", value);
  EXPECT_EQ(slurp(folder / "a.json"), "{\n  \"z\": 1,\n  \"a\": 2\n}\n");
}

TEST(Json, AFileThatIsNotThereIsAnIoErrorWithItsPath) {
  EXPECT_THAT(message_of<IoError>([] { load_json("/nowhere/x.json"); }),
              AllOf(HasSubstr("/nowhere/x.json"), HasSubstr("No such file")));
}

TEST(Json, StringsThatAreNotUtf8AreNotWritten) {
  const TemporaryFolder folder;
  const nlohmann::json value = {{"a", "\xC3"}};
  message_of<BadInput>([&] { write_json(folder / "a.json", value); });
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace attar::io
