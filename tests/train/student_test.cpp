#include "compress/train/student.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "compress/core/grid.h"
#include "compress/core/numerics.h"
#include "compress/core/quantized_linear.h"
#include "compress/train/trainer.h"
#include "tests/support/plain_block.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using testing::normal;
using testing::random_model;
using testing::small_config;
using testing::Variety;

Batch some_batch(std::int64_t size, std::int64_t length, std::int64_t vocabulary) {
  const at::Tensor all =
      (normal({size, length + 1}, "ids").abs() * 1000).to(at::kLong) % vocabulary;
  Batch batch{all.narrow(1, 0, length).contiguous(), all.narrow(1, 1, length).clone(), {}};
  batch.targets[0][3] = -1;  // does not count
  for (std::int64_t i = 0; i < size; ++i) batch.windows.push_back(i);
  return batch;
}

std::vector<Parameter> gradients_of(const Model& model, const Batch& batch, bool recompute = false,
                                    const Learning& learning = {}) {
  Student student(model, learning);
  prepare(student.parameters(), {});
  NextToken(recompute).add_gradient(student, batch, 1.0 / static_cast<double>(batch.counted()));
  return student.parameters();
}

// Gradients of the plain loss in float64 by LibTorch's own derivatives, by parameter name.
std::map<std::string, at::Tensor> plain_gradients(const Model& model, const Batch& batch) {
  const ModelConfig& config = model.config();
  const RopeTable rope = rope_table(config, 64);
  std::map<std::string, at::Tensor> leaves;
  const auto leaf = [&](const std::string& name, at::Tensor& value) {
    if (!value.defined()) return;
    value = value.detach().to(at::kDouble).requires_grad_(true);
    leaves[name] = value;
  };
  at::Tensor embedding = dense(model.embedding()), norm = model.final_norm();
  leaf("model.embed_tokens.weight", embedding);
  leaf("model.norm.weight", norm);
  at::Tensor x = at::embedding(embedding, batch.ids);
  for (std::int64_t i = 0; i < config.layers; ++i) {
    testing::PlainBlock block = testing::plain_block(model.block(i), at::kDouble);
    const std::string name = "model.layers." + std::to_string(i) + ".";
    for (const Norm norm : kNorms) {
      leaf(name + std::string(short_name(norm)) + ".weight", block.norms[index_of(norm)]);
    }
    for (const Role role : kRoles) {
      const std::string layer = name + std::string(short_name(role));
      leaf(layer + ".weight", block.weights[index_of(role)]);
      leaf(layer + ".bias", block.biases[index_of(role)]);
    }
    x = testing::plain_forward(config, block, rope, x);
  }
  const at::Tensor logits =
      testing::plain_norm(x, norm, config.norm_eps).matmul(embedding.t()).flatten(0, 1);
  const at::Tensor targets = batch.targets.flatten(), counts = targets.ge(0);
  const at::Tensor picked =
      at::log_softmax(logits, -1).gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);
  const at::Tensor loss = -(picked * counts).sum() / counts.sum();
  std::vector<at::Tensor> inputs;
  for (const auto& [name, value] : leaves) inputs.push_back(value);
  const auto found = torch::autograd::grad({loss}, inputs);
  std::size_t at = 0;
  for (auto& [name, value] : leaves) value = found[at++];
  return leaves;
}

class StudentOf : public ::testing::TestWithParam<Variety> {};

TEST_P(StudentOf, GradientsEqualPlainOnesInDouble) {
  const Model model = random_model(GetParam());
  const Batch batch = some_batch(3, 21, model.config().vocabulary);
  const auto expected = plain_gradients(model, batch);
  const auto got = gradients_of(model, batch);
  ASSERT_EQ(got.size(), expected.size());
  for (const Parameter& p : got) {
    const at::Tensor& want = expected.at(p.name);
    const double scale = want.norm().item<double>();
    ASSERT_GT(scale, 0) << p.name;
    // Some twenty rounded operations lie between a weight and the loss.
    EXPECT_LE((p.gradient.to(at::kDouble) - want).norm().item<double>(), 3e-6 * scale) << p.name;
  }
}

TEST_P(StudentOf, ThreadsAndRecomputingChangeNoBit) {
  const Model model = random_model(GetParam());
  const Batch batch = some_batch(5, 70, model.config().vocabulary);
  set_threads(1);
  const auto one = gradients_of(model, batch);
  set_threads(2);
  const auto two = gradients_of(model, batch), again = gradients_of(model, batch, true);
  for (std::size_t i = 0; i < one.size(); ++i) {
    EXPECT_TRUE(at::equal(one[i].gradient, two[i].gradient)) << one[i].name;
    EXPECT_TRUE(at::equal(one[i].gradient, again[i].gradient)) << one[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, StudentOf, testing::all_varieties(),
                         [](const auto& info) { return testing::name_of(info.param); });

// A weight in parts has the gradient of the dense weight, carried to its parts by the chain rule.
TEST(Student, LearnsFactorsCorrectionsAndWhatASparseWeightKeeps) {
  Model model = random_model();
  const ModelConfig& config = model.config();
  Block block = model.block(1);
  const LowRankWeight factors{normal({config.hidden, 5}, "b", 0.1),
                              normal({5, config.q_width()}, "a", 0.1)};
  const LowRankWeight correction{normal({config.ffn, 3}, "cb", 0.1),
                                 normal({3, config.hidden}, "ca", 0.1)};
  const at::Tensor gate = dense(block[Role::kGate].weight), down = dense(block[Role::kDown].weight);
  const at::Tensor keep = normal(down.sizes().vec(), "keep").gt(0).to(at::kFloat);
  block[Role::kOutput].weight = factors;
  block[Role::kGate].weight = CorrectedWeight{DenseWeight{gate}, correction};
  block[Role::kDown].weight = to_sparse(down * keep);
  model.put_block(1, block);
  const Batch batch = some_batch(2, 20, config.vocabulary);
  const auto plain = plain_gradients(model, batch);
  const auto want = [&](const char* layer) {
    return plain.at(std::string("model.layers.1.") + layer + ".weight").to(at::kFloat);
  };
  std::map<std::string, at::Tensor> got;
  Student student(model, {});
  prepare(student.parameters(), {});
  NextToken(false).add_gradient(student, batch, 1.0 / static_cast<double>(batch.counted()));
  for (const Parameter& p : student.parameters()) got[p.name] = p.gradient.clone();
  const auto near = [](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).norm().item<double>() <= 1e-5 * b.norm().item<double>();
  };
  const std::string o = "model.layers.1.self_attn.o_proj.weight";
  EXPECT_TRUE(near(got.at(o + ".b"), want("self_attn.o_proj").matmul(factors.a.t())));
  EXPECT_TRUE(near(got.at(o + ".a"), factors.b.t().matmul(want("self_attn.o_proj"))));
  const std::string g = "model.layers.1.mlp.gate_proj.weight";
  EXPECT_TRUE(near(got.at(g + ".correction.b"), want("mlp.gate_proj").matmul(correction.a.t())));
  EXPECT_TRUE(near(got.at(g + ".correction.a"), correction.b.t().matmul(want("mlp.gate_proj"))));
  EXPECT_FALSE(got.contains(g)) << "the base of a corrected weight is held";
  adamw_step(student.parameters(), {}, 0.01, 0);
  const Block after = student.block(1, false);
  EXPECT_EQ(kind_of(after[Role::kDown].weight), "sparse");
  const at::Tensor moved = dense(after[Role::kDown].weight);
  EXPECT_TRUE(at::equal(moved.eq(0), keep.eq(0)));
  EXPECT_FALSE(at::equal(moved, down * keep));
  EXPECT_EQ(kind_of(after[Role::kGate].weight), "corrected");
}

// Factors on a grid leave it when they learn, and only then; layers that are left out do not.
TEST(Student, FactorsKeepTheirCodesWhereTheyDoNotLearn) {
  Model model = random_model();
  const ModelConfig& config = model.config();
  Block block = model.block(0);
  const LowRankWeight correction{normal({config.ffn, 3}, "cb", 0.1),
                                 normal({3, config.hidden}, "ca", 0.1), 77};
  for (const Role role : {Role::kGate, Role::kUp}) {
    block[role].weight = CorrectedWeight{DenseWeight{dense(block[role].weight)}, correction};
  }
  model.put_block(0, block);
  const auto bytes_of = [&](const Learning& learning, Role role) {
    const Block after = Student(model, learning).block(0, false);
    return std::get<CorrectedWeight>(after[role].weight).correction.code_bytes;
  };
  Learning learning;
  EXPECT_EQ(bytes_of(learning, Role::kGate), 0);
  learning.leaves_out = [](std::int64_t, Role role) { return role == Role::kUp; };
  EXPECT_EQ(bytes_of(learning, Role::kGate), 0);
  EXPECT_EQ(bytes_of(learning, Role::kUp), 77);
  learning.corrections = false;
  EXPECT_EQ(bytes_of(learning, Role::kGate), 77);
}

// What a dense embedding's gradient is, over logits and inputs, its grid has by the chain rule.
TEST(Student, LearnsTheGridOfAnEmbeddingThatIsTheHead) {
  Model model = random_model();
  QuantScheme scheme;
  scheme.bits = 4;
  scheme.group_size = 32;
  scheme.zero_point = ZeroPoint::kMinimum;
  const at::Tensor values = dense(model.embedding());
  const QuantizedWeight codes = quantize_to_grid(values, choose_grid(values, scheme));
  model.put_outer({codes, model.final_norm(), std::nullopt});
  const Batch batch = some_batch(2, 20, model.config().vocabulary);
  const GridGradient want = grid_gradient(
      plain_gradients(model, batch).at("model.embed_tokens.weight").to(at::kFloat), codes);
  Student student(model, {.weights = false, .norms = false, .embedding = false, .scales = true});
  prepare(student.parameters(), {});
  ASSERT_EQ(student.parameters().size(), 2u);
  for (int micro = 0; micro < 2; ++micro) {
    NextToken(false).add_gradient(student, batch, 0.5 / static_cast<double>(batch.counted()));
  }
  const at::Tensor scale = student.parameters()[0].gradient / student.parameters()[0].unit;
  const at::Tensor minimum = student.parameters()[1].gradient / student.parameters()[1].unit;
  const auto gap = [](const at::Tensor& a, const at::Tensor& b) {
    return (a - b).norm().item<double>() / b.norm().item<double>();
  };
  EXPECT_LE(gap(scale, want.scale), 1e-5);
  EXPECT_LE(gap(minimum, want.minimum), 1e-5);
  const at::Tensor before = student.head();
  adamw_step(student.parameters(), {}, 0.01, 0);
  EXPECT_FALSE(at::equal(student.head(), before));
  const Weight after = student.embedding(false);
  EXPECT_TRUE(at::equal(std::get<QuantizedWeight>(after).codes, codes.codes));
}

// What a dense weight's gradient is, the places of its codes have times the scale; the start is the
// model that came in.
TEST(Student, LearnsCodesThroughTheirRounding) {
  Model model = random_model();
  QuantScheme scheme;
  scheme.bits = 6;
  scheme.group_size = 32;
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    Block block = model.block(i);
    const at::Tensor values = dense(block[Role::kUp].weight);
    block[Role::kUp].weight = quantize_to_grid(values, choose_grid(values, scheme));
    model.put_block(i, block);
  }
  const Batch batch = some_batch(2, 20, model.config().vocabulary);
  const auto want = plain_gradients(model, batch);
  Student student(model, {.weights = false, .norms = false, .embedding = false, .codes = true});
  prepare(student.parameters(), {});
  NextToken(true).add_gradient(student, batch, 1.0 / static_cast<double>(batch.counted()));
  ASSERT_EQ(student.parameters().size(), 3u);
  for (std::int64_t i = 0; i < 3; ++i) {
    const auto codes = std::get<QuantizedWeight>(model.block(i)[Role::kUp].weight);
    const auto same = std::get<QuantizedWeight>(student.block(i, false)[Role::kUp].weight);
    EXPECT_TRUE(at::equal(same.codes, codes.codes));
    const Parameter& places = student.parameters()[static_cast<std::size_t>(i)];
    const at::Tensor expected = want.at("model.layers." + std::to_string(i) + "." +
                                        std::string(short_name(Role::kUp)) + ".weight")
                                    .to(at::kFloat) *
                                codes.scale.repeat_interleave(32, 1);
    EXPECT_LE((places.gradient - expected).norm().item<double>(),
              1e-5 * expected.norm().item<double>());
  }
  adamw_step(student.parameters(), {}, 1.0, 0);
  student.follow_parameters();
  const auto moved = std::get<QuantizedWeight>(student.block(0, false)[Role::kUp].weight);
  EXPECT_TRUE(at::equal(dense(student.learning_block(0)[Role::kUp].weight).detach(), dense(moved)));
  EXPECT_FALSE(
      at::equal(moved.codes, std::get<QuantizedWeight>(model.block(0)[Role::kUp].weight).codes));
}

// Where it is asked for, what is in codes learns as the values that they stand for; else it stays.
TEST(Student, LearnsPlainValuesFromCodes) {
  Model model = random_model();
  QuantScheme scheme;
  scheme.bits = 4;
  scheme.group_size = 32;
  const auto rounded = [&](const Weight& weight) {
    return quantize_to_grid(dense(weight), choose_grid(dense(weight), scheme));
  };
  model.put_outer({rounded(model.embedding()), model.final_norm(), std::nullopt});
  Block block = model.block(0);
  block[Role::kUp].weight = rounded(block[Role::kUp].weight);
  model.put_block(0, block);
  const Student same(model, {.norms = false});
  EXPECT_EQ(kind_of(same.embedding(false)), "quantized");
  EXPECT_EQ(kind_of(same.block(0, false)[Role::kUp].weight), "quantized");

  const Batch batch = some_batch(2, 20, model.config().vocabulary);
  const auto want = plain_gradients(model, batch);
  Student student(model, {.norms = false, .from_codes = true});
  prepare(student.parameters(), {});
  NextToken(false).add_gradient(student, batch, 1.0 / static_cast<double>(batch.counted()));
  const std::string up = "model.layers.0." + std::string(short_name(Role::kUp)) + ".weight";
  for (const std::string& name : {std::string("model.embed_tokens.weight"), up}) {
    const auto found = std::find_if(student.parameters().begin(), student.parameters().end(),
                                    [&](const Parameter& p) { return p.name == name; });
    ASSERT_NE(found, student.parameters().end()) << name;
    const at::Tensor expected = want.at(name).to(at::kFloat);
    EXPECT_LE((found->gradient - expected).norm().item<double>(),
              1e-5 * expected.norm().item<double>())
        << name;
  }
  EXPECT_EQ(kind_of(student.embedding(false)), "dense");
  EXPECT_EQ(kind_of(student.block(0, false)[Role::kUp].weight), "dense");
}

TEST(Student, HoldsWhatIsNotToLearn) {
  const auto learns = [](const Learning& learning) {
    Student student(random_model(), learning);
    return student.parameters().size();
  };
  EXPECT_EQ(learns({.weights = false, .embedding = false}), 3u * 2 + 1);
  EXPECT_EQ(learns({.norms = false, .embedding = false}), 3u * 7);
  EXPECT_EQ(learns({}), 3u * 9 + 2);
}

}  // namespace
}  // namespace attar
