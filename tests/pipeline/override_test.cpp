#include <gmock/gmock.h>

#include "compress/pipeline/recipe.h"

namespace attar {
namespace {

using nlohmann::json;

json base() {
  return {
      {"version", 1},
      {"passes", {{{"a.b", {{"bits", 4}}}}, {{"pass", "c.d"}, {"bits", 4}}, {{"e.f", nullptr}}}},
      {"calibration", {{"text", "t"}}}};
}

json changed(const char* assignment) {
  json document = base();
  apply_override(document, assignment);
  return document;
}

TEST(Override, ReachesIntoBothFormsOfAStep) {
  EXPECT_EQ(changed("passes.0.bits=3")["passes"][0]["a.b"]["bits"], 3);
  EXPECT_EQ(changed("passes.1.bits=3")["passes"][1]["bits"], 3);
  EXPECT_EQ(changed("passes.2.bits=3")["passes"][2]["e.f"]["bits"], 3);
}

TEST(Override, SetsScalarsListsAndNewKeys) {
  EXPECT_EQ(changed("calibration.sequences=16")["calibration"]["sequences"], 16);
  EXPECT_EQ(changed("eval=[]")["eval"], json::array());
  EXPECT_EQ(changed("gate={kl_mean: 0.5}")["gate"]["kl_mean"], 0.5);
  EXPECT_EQ(changed("strict=true")["strict"], true);
}

TEST(Override, MakesPathsOfTheWorkingDirectory) {
  const auto here = [](const char* path) { return std::filesystem::absolute(path).string(); };
  EXPECT_EQ(changed("model=m.gguf")["model"], here("m.gguf"));
  EXPECT_EQ(changed("calibration={text: [a, b], length: 8}")["calibration"]["text"],
            json({here("a"), here("b")}));
  const json tasks = changed("eval=[{arc_easy: {path: data}}]")["eval"];
  EXPECT_EQ(tasks[0]["arc_easy"]["path"], here("data"));
  EXPECT_EQ(changed("passes.0.teacher=big")["passes"][0]["a.b"]["teacher"], here("big"));
  EXPECT_EQ(changed("passes.0.teacher=original")["passes"][0]["a.b"]["teacher"], "original");
  const json exports = changed("export=[{path: x.gguf, importance: i.dat}]")["export"];
  EXPECT_EQ(exports[0]["path"], "x.gguf");
  EXPECT_EQ(exports[0]["importance"], here("i.dat"));
}

TEST(Override, RefusesWhatLeadsNowhere) {
  for (const char* wrong : {"passes.9.bits=3", "passes.x.bits=3", "passes.-1.bits=3", "version.x=1",
                            "=3", "model", "a..b=3", ".a=3", "passes.0.bits.x=3"}) {
    json document = base();
    EXPECT_THROW(apply_override(document, wrong), UsageError) << wrong;
  }
  json document = base();
  EXPECT_THROW(apply_override(document, "seed=[1"), BadInput);
}

}  // namespace
}  // namespace attar
