#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "compress/core/errors.h"
#include "compress/formats/export.h"
#include "compress/formats/file_source.h"
#include "compress/formats/model_file.h"
#include "compress/io/gguf_file.h"
#include "compress/io/json.h"
#include "tests/formats/round_to_nearest.h"
#include "tests/formats/tiny_model.h"
#include "tests/io/temporary_folder.h"

namespace attar {
namespace {

using io::testing::message_of;
using io::testing::slurp;
using io::testing::TemporaryFolder;
using testing::expect_same_tensors;
using ::testing::HasSubstr;
using testing::TinyModel;
using testing::write_tiny_model;

ExportOptions options_for(ExportFormat format, std::string type = "") {
  ExportOptions options;
  options.format = format;
  options.type = std::move(type);
  return options;
}

// A tiny model whose linear layers with `part` in their name were rounded.
void round_layers(Model& model, const QuantScheme& scheme, std::string_view part = "") {
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    Block block = model.block(i);
    for (const Role role : kRoles) {
      if (layer_name(i, role).find(part) == std::string::npos) continue;
      block[role].weight = testing::round_to_nearest(dense(block[role].weight), scheme);
    }
    model.put_block(i, block);
  }
}

class DenseRoundTrip : public ::testing::TestWithParam<TinyModel> {};

TEST_P(DenseRoundTrip, ThroughAFolderIsExact) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), GetParam());
  const Model model(open_model(folder.path()));
  const ExportReport report =
      export_model(model, folder / "out", options_for(ExportFormat::kHuggingFace));
  expect_same_tensors(Model(open_model(folder / "out")), model);
  EXPECT_EQ(report.max_rounding, 0);
  EXPECT_EQ(report.bytes, std::filesystem::file_size(folder / "out/model.safetensors"));
}

TEST_P(DenseRoundTrip, ThroughGgufIsExact) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), GetParam());
  const Model model(open_model(folder.path()));
  for (const char* type : {"F32", "BF16"}) {
    ExportOptions options = options_for(ExportFormat::kGguf, type);
    options.replace = true;
    export_model(model, folder / "m.gguf", options);
    const Model back(open_model(folder / "m.gguf"));
    EXPECT_EQ(back.source().format(), "gguf");
    expect_same_tensors(back, model);
    EXPECT_EQ(back.config().rope.theta, model.config().rope.theta);
    EXPECT_EQ(back.config().norm_eps, model.config().norm_eps);
  }
}

TEST_P(DenseRoundTrip, ThroughGgufAndBackToAFolderIsExact) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), GetParam());
  const Model model(open_model(folder.path()));
  export_model(model, folder / "m.gguf", options_for(ExportFormat::kGguf, "F32"));
  const Model middle(open_model(folder / "m.gguf"));
  export_model(middle, folder / "out", options_for(ExportFormat::kHuggingFace));
  const Model back(open_model(folder / "out"));
  expect_same_tensors(back, model);
  EXPECT_EQ(back.config().eos, model.config().eos);
  EXPECT_EQ(back.config().max_positions, model.config().max_positions);
}

INSTANTIATE_TEST_SUITE_P(
    Models, DenseRoundTrip,
    ::testing::Values(TinyModel{}, TinyModel{.tied = false}, TinyModel{.kv_heads = 4},
                      TinyModel{.biases = true, .type = io::ElementType::bf16},
                      TinyModel{.kv_heads = 1, .tied = false, .type = io::ElementType::f16}),
    [](const auto& info) {
      return std::string(io::safetensors_name(info.param.type)) + "_kv" +
             std::to_string(info.param.kv_heads) + (info.param.tied ? "_tied" : "_untied") +
             (info.param.biases ? "_biases" : "");
    });

TEST(FolderExport, CutsIntoShardsThatReadBackEqual) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.layers = 3, .tied = false});
  const Model model(open_model(folder.path()));
  ExportOptions options = options_for(ExportFormat::kHuggingFace);
  options.max_shard_bytes = 300'000;
  const ExportPlan plan = check_export(model.source(), {model.config(), {}}, options);
  const ExportReport report = export_model(model, folder / "out", options);
  EXPECT_EQ(report.bytes, plan.bytes);
  EXPECT_TRUE(std::filesystem::exists(folder / "out/model-00001-of-00002.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(folder / "out/model.safetensors.index.json"));
  expect_same_tensors(Model(open_model(folder / "out")), model);
}

TEST(FolderExport, KeepsTheConfigurationAndCopiesItsCompanions) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.extra = {{"pretraining_tp", 1}, {"_note", "kept"}}});
  folder.put("chat_template.jinja", "{{ messages }}\r\n");
  folder.put("generation_config.json", "{ \"temperature\":0.5}");
  const Model model(open_model(folder.path()));
  export_model(model, folder / "out", options_for(ExportFormat::kHuggingFace, "bf16"));
  EXPECT_EQ(slurp(folder / "out/chat_template.jinja"), "{{ messages }}\r\n");
  EXPECT_EQ(slurp(folder / "out/generation_config.json"), "{ \"temperature\":0.5}");
  const nlohmann::json config = io::load_json(folder / "out/config.json");
  EXPECT_EQ(config.at("_note"), "kept");
  EXPECT_EQ(config.at("torch_dtype"), "bfloat16");
  EXPECT_EQ(config.at("eos_token_id"), nlohmann::json({2, 3}));
}

TEST(FolderExport, SaysHowFarItRoundedAndWhere) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  Model model(open_model(folder.path()));
  Block block = model.block(1);
  at::Tensor values = dense(block[Role::kGate].weight).clone();
  values[5][6] = 1.0F + 1.0F / 4096;  // a quarter of a float16 step above 1
  block[Role::kGate].weight = DenseWeight{values};
  model.put_block(1, block);
  const ExportReport report =
      export_model(model, folder / "out", options_for(ExportFormat::kHuggingFace, "f16"));
  EXPECT_EQ(report.max_rounding, 1.0 / 4096);
  EXPECT_EQ(report.max_rounding_tensor, "model.layers.1.mlp.gate_proj.weight");
}

TEST(FolderExport, RefusesAnInfinityAndLeavesNothingBehind) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  Model model(open_model(folder.path()));
  Block block = model.block(1);
  block[Role::kGate].weight = DenseWeight{dense(block[Role::kGate].weight) * 1e6F};
  model.put_block(1, block);
  const std::string message = message_of<NumericRefusal>(
      [&] { export_model(model, folder / "out", options_for(ExportFormat::kHuggingFace, "f16")); });
  EXPECT_THAT(message, HasSubstr("model.layers.1.mlp.gate_proj.weight"));
  EXPECT_THAT(message, HasSubstr("choose bf16 or f32"));
  const auto gguf = [&] {
    export_model(model, folder / "m.gguf", options_for(ExportFormat::kGguf, "F16"));
  };
  EXPECT_THAT(message_of<NumericRefusal>(gguf), HasSubstr("blk.1.ffn_gate.weight"));
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"config.json", "model.safetensors"}));
}

TEST(FolderExport, DoesNotTouchWhatIsThere) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  const Model model(open_model(folder.path()));
  std::filesystem::create_directory(folder / "out");
  std::ofstream(folder / "out/precious") << "x";
  EXPECT_THROW(export_model(model, folder / "out", options_for(ExportFormat::kHuggingFace)),
               UsageError);
  folder.put("m.gguf", "precious");
  EXPECT_THROW(export_model(model, folder / "m.gguf", options_for(ExportFormat::kGguf, "F16")),
               UsageError);
  EXPECT_EQ(slurp(folder / "m.gguf"), "precious");
}

TEST(CompressedTensorsExport, ComesBackWithTheSameCodes) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.tied = false, .biases = true, .type = io::ElementType::f16});
  Model model(open_model(folder.path()));
  round_layers(model, {4, 32, ZeroPoint::kInteger, at::kHalf}, "mlp.");
  round_layers(model, {8, 0, ZeroPoint::kSymmetric, at::kHalf}, "self_attn.q");
  export_model(model, folder / "out", options_for(ExportFormat::kCompressedTensors));
  const Model back(open_model(folder / "out"));
  expect_same_tensors(back, model);
  const Block block = back.block(0);
  EXPECT_EQ(kind_of(block[Role::kUp].weight), "quantized");
  EXPECT_EQ(kind_of(block[Role::kKey].weight), "dense");
  EXPECT_EQ(std::get<QuantizedWeight>(block[Role::kQuery].weight).scheme.bits, 8);
  EXPECT_EQ(stored_weight(back.source(), 0, Role::kUp).type, "W4 g32 asymmetric");
}

TEST(GgufExport, KeepsCodesThatFitAndSaysSo) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {.type = io::ElementType::f16});
  Model model(open_model(folder.path()));
  round_layers(model, {4, 32, ZeroPoint::kSymmetric, at::kHalf}, "mlp.");
  round_layers(model, {4, 32, ZeroPoint::kMinimum, at::kHalf}, "_proj.q");
  round_layers(model, {8, 64, ZeroPoint::kSymmetric, at::kHalf}, "self_attn.v");
  round_layers(model, {4, 64, ZeroPoint::kInteger, at::kHalf}, "self_attn.k");
  const ExportReport report =
      export_model(model, folder / "m.gguf", options_for(ExportFormat::kGguf, "auto"));
  std::map<std::string, TensorExport> by_name;
  for (const TensorExport& tensor : report.tensors) by_name[tensor.tensor] = tensor;
  EXPECT_EQ(by_name["blk.0.ffn_up.weight"].type, "Q4_0");
  EXPECT_EQ(by_name["blk.0.ffn_up.weight"].how, "kept codes");
  EXPECT_EQ(by_name["blk.0.attn_v.weight"].type, "Q8_0");
  EXPECT_EQ(by_name["blk.0.attn_k.weight"].type, "Q4_1");
  EXPECT_EQ(by_name["blk.0.attn_k.weight"].how, "kept codes, minima rounded");
  EXPECT_GT(by_name["blk.0.attn_k.weight"].max_difference, 0);
  EXPECT_EQ(by_name["blk.0.attn_output.weight"].type, "F16");
  EXPECT_EQ(by_name["token_embd.weight"].type, "F16");
  const auto got = testing::dense_tensors(Model(open_model(folder / "m.gguf")));
  for (const auto& [name, tensor] : testing::dense_tensors(model)) {
    if (name.find("k_proj") != std::string::npos) continue;
    EXPECT_TRUE(at::equal(got.at(name), tensor)) << name;
  }
}

TEST(GgufExport, OfAGgufKeepsItsBlocksByteForByte) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  ExportOptions first = options_for(ExportFormat::kGguf, "Q4_1");
  first.embedding_type = "Q8_0";
  export_model(Model(open_model(folder.path())), folder / "a.gguf", first);
  export_model(Model(open_model(folder / "a.gguf")), folder / "b.gguf",
               options_for(ExportFormat::kGguf, "auto"));
  const io::GgufFile a = io::GgufFile::open(folder / "a.gguf");
  const io::GgufFile b = io::GgufFile::open(folder / "b.gguf");
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const io::GgufTensor& tensor : a.tensors()) {
    const io::GgufTensor& other = b.tensor(tensor.name);
    EXPECT_EQ(tensor.type, other.type);
    EXPECT_TRUE(std::equal(tensor.bytes.begin(), tensor.bytes.end(), other.bytes.begin()))
        << tensor.name;
  }
}

TEST(GgufExport, StoresLlama3ScalingAsFactorsAndRecognizesIt) {
  const TemporaryFolder folder;
  const nlohmann::json scaling = {{"rope_type", "llama3"},
                                  {"factor", 8.0},
                                  {"low_freq_factor", 1.0},
                                  {"high_freq_factor", 4.0},
                                  {"original_max_position_embeddings", 8192}};
  write_tiny_model(folder.path(), {.extra = {{"rope_scaling", scaling}, {"rope_theta", 5e5}}});
  const Model model(open_model(folder.path()));
  export_model(model, folder / "m.gguf", options_for(ExportFormat::kGguf, "F32"));
  const Model middle(open_model(folder / "m.gguf"));
  EXPECT_EQ(middle.config().rope.stored_factors.size(), 8);
  export_model(middle, folder / "out", options_for(ExportFormat::kHuggingFace));
  const Model back(open_model(folder / "out"));
  EXPECT_EQ(back.config().rope.scaling, RopeScaling::kLlama3);
  EXPECT_EQ(back.config().rope.factor, 8.0);
  expect_same_tensors(back, model);
}

TEST(Export, WritesTheSameBytesTwice) {
  const TemporaryFolder folder;
  write_tiny_model(folder.path(), {});
  Model model(open_model(folder.path()));
  round_layers(model, {4, 32, ZeroPoint::kInteger, at::kHalf});
  for (const char* name : {"a", "b"}) {
    export_model(model, folder / name, options_for(ExportFormat::kCompressedTensors));
    export_model(model, folder / (std::string(name) + ".gguf"),
                 options_for(ExportFormat::kGguf, "Q4_1"));
  }
  EXPECT_EQ(slurp(folder / "a/model.safetensors"), slurp(folder / "b/model.safetensors"));
  EXPECT_EQ(slurp(folder / "a/config.json"), slurp(folder / "b/config.json"));
  EXPECT_EQ(slurp(folder / "a.gguf"), slurp(folder / "b.gguf"));
}

}  // namespace
}  // namespace attar
