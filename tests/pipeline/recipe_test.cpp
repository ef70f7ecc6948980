#include "compress/pipeline/recipe.h"

#include <gmock/gmock.h>

#include "compress/io/yaml.h"
#include "tests/pipeline/fake_pass.h"

namespace attar {
namespace {

using testing::HasSubstr;

Recipe read(const std::string& yaml) {
  return read_recipe(io::parse_yaml(yaml, "r.yaml"), "r.yaml", fake_registry());
}

constexpr const char* kHead = "version: 1\nmodel: m\n";

TEST(Recipe, ReadsBothFormsOfAStep) {
  const Recipe recipe =
      read(std::string(kHead) + "passes: [{fake.plain: {bits: 3}}, {pass: fake.plain, bits: 5}]");
  ASSERT_EQ(recipe.passes.size(), 2U);
  EXPECT_EQ(recipe.passes[0].options, nlohmann::json({{"bits", 3}}));
  EXPECT_EQ(recipe.passes[1].options, nlohmann::json({{"bits", 5}}));
}

TEST(Recipe, ResolvedFormReadsBackToItself) {
  const Recipe recipe = read(std::string(kHead) +
                             "seed: 9\ncalibration: {text: t}\npasses: [fake.needy]\n"
                             "gate: {kl_mean: 0.5}\neval: [{divergence: {text: t}}, "
                             "{arc_easy: {path: d, limit: 3}}]\n"
                             "eval_after_every_pass: true\n"
                             "export: [{format: gguf, path: a.gguf}]\nchat: Why?");
  const nlohmann::json resolved = recipe.resolved(fake_registry());
  EXPECT_EQ(resolved["passes"][0]["fake.needy"]["bits"], 4);
  EXPECT_EQ(resolved["eval_after_every_pass"], true);
  EXPECT_EQ(read(to_yaml(resolved)).resolved(fake_registry()), resolved);
}

TEST(Recipe, WhatDecidesTheWeightsLeavesOutWhatDoesNot) {
  const Recipe one = read(std::string(kHead) +
                          "threads: 1\ncalibration: {text: t, batch: 1}\n"
                          "passes: [fake.needy]");
  const Recipe two = read(std::string(kHead) +
                          "threads: 2\ncalibration: {text: t, batch: 8}\n"
                          "passes: [fake.needy]\neval: [{perplexity: "
                          "{text: t}}]\neval_after_every_pass: true");
  const Recipe other =
      read(std::string(kHead) + "calibration: {text: t}\npasses: [{fake.needy: {bits: 3}}]");
  EXPECT_EQ(one.deciding(fake_registry()), two.deciding(fake_registry()));
  EXPECT_NE(one.deciding(fake_registry()), other.deciding(fake_registry()));
}

struct Mistake {
  const char* name;
  std::string yaml;  // behind kHead
  const char* says;
};

class RecipeMistake : public testing::TestWithParam<Mistake> {};

TEST_P(RecipeMistake, IsAUsageErrorThatNamesItsPlace) {
  try {
    read(kHead + GetParam().yaml);
    FAIL() << "was accepted";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().says));
    EXPECT_THAT(error.what(), HasSubstr("r.yaml"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Table, RecipeMistake,
    testing::Values(
        Mistake{"top_key", "pases: []", "unknown key 'pases'"},
        Mistake{"pass_key", "passes: [{fake.plain: {bitz: 4}}]", "passes[0] fake.plain"},
        Mistake{"pass_name", "passes: [fake.none]", "known passes: fake.needy, fake.plain"},
        Mistake{"pass_range", "passes: [{fake.plain: {bits: 9}}]", "bits must be in [2, 8], got 9"},
        Mistake{"pass_type", "passes: [{fake.plain: {bits: [3, 4]}}]", "bits"},
        Mistake{"pass_two_keys", "passes: [{fake.plain: {}, fake.needy: {}}]", "has 2 keys"},
        Mistake{"passes_no_list", "passes: {fake.plain: {}}", "passes must be a list"},
        Mistake{"no_calibration", "passes: [fake.needy]", "needs calibration text"},
        Mistake{"calibration_key", "calibration: {text: t, seqs: 3}", "unknown key 'seqs'"},
        Mistake{"calibration_text", "calibration: {sequences: 3}", "text is missing"},
        Mistake{"gate_empty", "gate: {}\neval: [{perplexity: {text: t}}]", "has no bound"},
        Mistake{"gate_text", "gate: {kl_mean: 1}", "nothing to measure on"},
        Mistake{"gate_action", "gate: {kl_mean: 1, action: cry}", "stop | warn"},
        Mistake{"eval_name", "eval: [{mmul: {path: d}}]", "unknown task 'mmul'"},
        Mistake{"eval_text", "eval: [perplexity]", "text is missing"},
        Mistake{"eval_path", "eval: [arc_easy]", "path is missing"},
        Mistake{"eval_key", "eval: [{arc_easy: {path: d, shot: 5}}]", "unknown key 'shot'"},
        Mistake{"export_format", "export: [{format: onnx, path: a}]", "gguf"},
        Mistake{"export_up", "export: [{format: huggingface, path: ../a}]", "inside of the output"},
        Mistake{"export_root", "export: [{format: huggingface, path: /a}]", "inside of the output"},
        Mistake{"export_gguf", "export: [{format: gguf, path: a}]", "end its path in .gguf"},
        Mistake{"export_own", "export: [{format: huggingface, path: run.jsonl}]", "itself writes"},
        Mistake{"export_twice",
                "export: [{format: huggingface, path: a}, {format: huggingface, path: a/b}]",
                "overlap"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(Recipe, WithoutAVersionIsRefused) {
  EXPECT_THROW(read("model: m"), UsageError);
  EXPECT_THROW(read("version: 2\nmodel: m"), UsageError);
  EXPECT_THROW(read("[1, 2]"), UsageError);
}

TEST(Recipe, PathsAreLookedForBesideTheRecipeFirst) {
  const std::filesystem::path file = std::filesystem::path(ATTAR_SOURCE_DIR) / "recipes/x.yaml";
  EXPECT_EQ(resolve_path("smollm2.yaml", file), (file.parent_path() / "smollm2.yaml").string());
  EXPECT_EQ(resolve_path("no/such/file", file), "no/such/file");
  EXPECT_EQ(resolve_path("/a/b", file), "/a/b");
}

}  // namespace
}  // namespace attar
