// The runtime on codes (Arithmetic::kQuantized) beside the dense one on the same model.
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "compress/core/grid.h"
#include "compress/core/numerics.h"
#include "compress/runtime/transformer.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

// A grid of random codes whose values have the deviation of RandomSource.
QuantizedWeight random_codes(std::int64_t out, std::int64_t in, const QuantScheme& scheme,
                             const std::string& name) {
  const at::Tensor values = testing::normal({out, in}, name);
  const double middle = scheme.levels() / 2;
  const at::Tensor codes = (values * (middle / 3) + middle).round().clamp(0, scheme.levels() - 1);
  const std::int64_t groups = scheme.groups(in);
  const double step = 3 / middle / std::sqrt(static_cast<double>(in));
  const at::Tensor scale = (testing::normal({out, groups}, name + ".scale", 0.2) + 1)
                               .mul(step)
                               .to(at::kHalf)
                               .to(at::kFloat);
  QuantizedWeight weight{scheme, codes.to(at::kByte), scale, {}};
  if (scheme.zero_point == ZeroPoint::kInteger) weight.zero = at::full_like(scale, middle);
  if (scheme.zero_point == ZeroPoint::kMinimum) {
    weight.zero = (scale * -middle).to(at::kHalf).to(at::kFloat);
  }
  return weight;
}

class CodesSource final : public testing::RandomSource {
 public:
  CodesSource(ModelConfig config, QuantScheme scheme, bool biases = false)
      : RandomSource(std::move(config), biases), scheme_(scheme) {}
  Block read_block(std::int64_t index) const override {
    Block block = RandomSource::read_block(index);
    for (const Role role : kRoles) {
      const WeightShape shape = shape_of(block[role].weight);
      block[role].weight = random_codes(shape.out, shape.in, scheme_,
                                        std::to_string(index) + std::string(to_string(role)));
    }
    return block;
  }

 private:
  QuantScheme scheme_;
};

// Wide enough that a token's step is shared out to threads.
ModelConfig wide_config() {
  ModelConfig config = testing::small_config();
  config.layers = 2;
  config.hidden = 512;
  config.ffn = 736;
  config.heads = 6;
  config.kv_heads = 3;
  config.head_dim = 64;
  return config;
}

Model codes_model(int bits, ZeroPoint zero_point, bool biases = false) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.group_size = 32;
  scheme.zero_point = zero_point;
  return Model(std::make_shared<CodesSource>(wide_config(), scheme, biases));
}

std::vector<TokenId> tokens(std::int64_t count) {
  std::vector<TokenId> ids(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<TokenId>((3 + 37 * i) % 101);
  return ids;
}

at::Tensor hidden_of(const Transformer& model, const std::vector<TokenId>& ids, std::size_t piece) {
  Transformer::State state = model.start();
  std::vector<at::Tensor> parts;
  for (std::size_t i = 0; i < ids.size(); i += piece) {
    parts.push_back(
        model.extend(state, std::span(ids).subspan(i, std::min(piece, ids.size() - i))));
  }
  return at::cat(parts, 0);
}

struct Grids {
  int bits;
  ZeroPoint zero_point;
};
class QuantizedRuntime : public ::testing::TestWithParam<Grids> {};
INSTANTIATE_TEST_SUITE_P(
    , QuantizedRuntime,
    ::testing::Values(Grids{4, ZeroPoint::kSymmetric}, Grids{4, ZeroPoint::kMinimum},
                      Grids{3, ZeroPoint::kInteger}, Grids{5, ZeroPoint::kMinimum},
                      Grids{6, ZeroPoint::kInteger}, Grids{8, ZeroPoint::kSymmetric}),
    [](const auto& info) {
      return "bits" + std::to_string(info.param.bits) + "_" +
             std::string(to_string(info.param.zero_point));
    });

// Rounding to 127 steps of the largest of 32 values leaves about 0.5 % of a row; two blocks of
// seven products carry that on. Zero would mean that nothing was rounded.
TEST_P(QuantizedRuntime, LiesNearTheDenseOne) {
  const Model model = codes_model(GetParam().bits, GetParam().zero_point, /*biases=*/true);
  const Transformer dense(model), quantized(model, Arithmetic::kQuantized);
  const auto ids = tokens(40);
  const at::Tensor a = hidden_of(dense, ids, 40), b = hidden_of(quantized, ids, 40);
  const double apart = ((a - b).norm() / a.norm()).item<double>();
  EXPECT_LT(apart, 0.03);
  EXPECT_GT(apart, 1e-5);
  const at::Tensor p = at::log_softmax(dense.head().logits(a), 1);
  const at::Tensor q = at::log_softmax(quantized.head().logits(b), 1);
  EXPECT_LT((p.exp() * (p - q)).sum(1).mean().item<double>(), 0.02);
}

TEST_P(QuantizedRuntime, HasTheSameBitsTokenByTokenAndForAnyThreads) {
  const Transformer model(codes_model(GetParam().bits, GetParam().zero_point, /*biases=*/true),
                          Arithmetic::kQuantized);
  const auto ids = tokens(37);
  const int before = threads();
  set_threads(1);
  const at::Tensor whole = hidden_of(model, ids, ids.size());
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    for (const std::size_t piece : {std::size_t{1}, std::size_t{8}, std::size_t{37}}) {
      EXPECT_TRUE(at::equal(hidden_of(model, ids, piece), whole)) << count << " " << piece;
    }
  }
  set_threads(before);
}

// A model on the grid of a searched type of GGUF, or MXFP4.
class BlocksSource final : public testing::RandomSource {
 public:
  explicit BlocksSource(BlockGrid grid)
      : RandomSource(super_config(), /*biases=*/true), grid_(grid) {}
  Block read_block(std::int64_t index) const override {
    Block block = RandomSource::read_block(index);
    for (const Role role : kRoles) {
      const at::Tensor values = dense(block[role].weight);
      block[role].weight = quantize_to_grid(values, choose_grid(values, block_scheme(grid_)));
    }
    return block;
  }

 private:
  static ModelConfig super_config() {
    ModelConfig config = wide_config();
    config.heads = 8, config.kv_heads = 4;
    config.ffn = 768;
    return config;
  }
  BlockGrid grid_;
};

class QuantizedRuntimeOfTypes : public ::testing::TestWithParam<BlockGrid> {};
INSTANTIATE_TEST_SUITE_P(, QuantizedRuntimeOfTypes,
                         ::testing::Values(BlockGrid::kQ2K, BlockGrid::kQ3K, BlockGrid::kQ4K,
                                           BlockGrid::kQ5K, BlockGrid::kQ6K, BlockGrid::kIq4Nl,
                                           BlockGrid::kIq4Xs, BlockGrid::kMxfp4),
                         [](const auto& info) { return std::string(to_string(info.param)); });

TEST_P(QuantizedRuntimeOfTypes, LiesNearTheDenseOneInFewBytesWithTheSameBitsForAnyThreads) {
  const Model model(std::make_shared<BlocksSource>(GetParam()));
  const Transformer dense(model), codes(model, Arithmetic::kQuantized);
  const auto ids = tokens(40);
  const int before = threads();
  set_threads(1);
  const at::Tensor exact = hidden_of(dense, ids, 40), whole = hidden_of(codes, ids, 40);
  const double apart = ((exact - whole).norm() / exact.norm()).item<double>();
  EXPECT_LT(apart, 0.03);
  EXPECT_GT(apart, 1e-5);
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    for (const std::size_t piece : {1, 8}) {
      EXPECT_TRUE(at::equal(hidden_of(codes, ids, piece), whole)) << count << " " << piece;
    }
  }
  set_threads(before);
  std::int64_t stored = 0;
  for (const Role role : kRoles) stored += stored_bytes(model.block(0)[role].weight);
  const auto held = static_cast<double>(codes.weight_bytes() - codes.head().bytes()) / 2;
  EXPECT_LT(held, (GetParam() == BlockGrid::kQ2K ? 1.25 : 1.07) * static_cast<double>(stored));
}

// One product of W8A8's codes is that of the definition (tests/core holds it to 1e-5). Sums are
// others in the last bit, which moves an activation that lies on a tie, as a token's lowest value
// does where it is its largest magnitude, and the next block carries that on.
TEST(QuantizedRuntimeOfW8A8, LiesNearTheDefinitionWithTheSameBitsTokenByTokenAndForAnyThreads) {
  QuantScheme scheme{8, 0, ZeroPoint::kSymmetric, at::kFloat};
  scheme.activation_bits = 8;
  const Model model(std::make_shared<CodesSource>(wide_config(), scheme, /*biases=*/true));
  const Transformer defined(model), codes(model, Arithmetic::kQuantized);
  const auto ids = tokens(37);
  const int before = threads();
  set_threads(1);
  const at::Tensor expected = hidden_of(defined, ids, ids.size());
  const at::Tensor whole = hidden_of(codes, ids, ids.size());
  EXPECT_LT(((whole - expected).norm() / expected.norm()).item<double>(), 3e-2);
  EXPECT_FALSE(at::equal(whole, expected));  // it is another arithmetic
  for (const int count : {1, 2, 5}) {
    set_threads(count);
    for (const std::size_t piece : {1, 8}) {
      EXPECT_TRUE(at::equal(hidden_of(codes, ids, piece), whole)) << count << " " << piece;
    }
  }
  set_threads(before);
}

TEST(QuantizedLanguageModel, ScoresSideBySideAsAlone) {
  const Model model = codes_model(4, ZeroPoint::kSymmetric);
  const std::vector<std::vector<TokenId>> together = {{5, 17, 80}, {44}, {7, 7, 7, 7, 7, 7}};
  const auto scores = make_quantized_language_model(model, nullptr)->score(tokens(20), together);
  for (std::size_t i = 0; i < together.size(); ++i) {
    const auto alone = make_quantized_language_model(model, nullptr)
                           ->score(tokens(20), std::span(together).subspan(i, 1));
    EXPECT_EQ(alone[0].token_log_probabilities, scores[i].token_log_probabilities) << i;
  }
}

// A weight that is no code, or on a grid that the kernels do not read, multiplies exactly.
TEST(QuantizedLanguageModel, LeavesPlainWeightsAsTheyAre) {
  const Model model = testing::random_model();
  const Transformer dense(model), quantized(model, Arithmetic::kQuantized);
  EXPECT_TRUE(at::equal(hidden_of(dense, tokens(20), 20), hidden_of(quantized, tokens(20), 20)));
  QuantScheme odd;
  odd.bits = 8, odd.group_size = 16;
  const Model grouped(std::make_shared<CodesSource>(testing::small_config(), odd));
  EXPECT_TRUE(at::equal(hidden_of(Transformer(grouped), tokens(20), 20),
                        hidden_of(Transformer(grouped, Arithmetic::kQuantized), tokens(20), 20)));
}

// Weights of one type, those of some layers in codes.
class MixedSource final : public testing::RandomSource {
 public:
  MixedSource(at::ScalarType type, std::vector<Role> in_codes)
      : RandomSource(wide_config(), /*biases=*/true), type_(type), codes_(in_codes) {}
  Block read_block(std::int64_t index) const override {
    Block block = RandomSource::read_block(index);
    for (const Role role : kRoles) {
      Weight& weight = block[role].weight;
      const WeightShape shape = shape_of(weight);
      if (std::find(codes_.begin(), codes_.end(), role) == codes_.end()) {
        weight = DenseWeight{std::get<DenseWeight>(weight).values.to(type_)};
      } else {
        weight = random_codes(shape.out, shape.in, QuantScheme{.group_size = 32},
                              std::to_string(index) + std::string(to_string(role)));
      }
    }
    return block;
  }

 private:
  at::ScalarType type_;
  std::vector<Role> codes_;
};

// Plain weights are shared out to the team of a token's step as well, codes beside them or not.
TEST(QuantizedLanguageModel, PlainWeightsHaveTheSameBitsTokenByTokenAndForAnyThreads) {
  const int before = threads();
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    for (const std::vector<Role>& in_codes :
         {std::vector<Role>{}, {Role::kOutput, Role::kGate, Role::kUp}, {Role::kDown}}) {
      const Transformer model(Model(std::make_shared<MixedSource>(type, in_codes)),
                              Arithmetic::kQuantized);
      set_threads(1);
      const at::Tensor whole = hidden_of(model, tokens(40), 40);  // more than a panel of 32
      for (const int count : {1, 2, 3, 5}) {
        set_threads(count);
        for (const std::size_t piece : {1, 8, 40}) {
          EXPECT_TRUE(at::equal(hidden_of(model, tokens(40), piece), whole))
              << c10::toString(type) << ", " << in_codes.size() << " in codes, " << count
              << " threads, pieces of " << piece;
        }
      }
    }
  }
  set_threads(before);
}

// One token's step by a team of threads codes its keys and values as a prompt read at once does.
TEST(QuantizedLanguageModel, StepsWithACodedCacheAsItReadsAPrompt) {
  const int before = threads();
  for (const CacheType cache : {CacheType::kCodes8, CacheType::kCodes4}) {
    const Model model = codes_model(4, ZeroPoint::kSymmetric, /*biases=*/true);
    const Transformer transformer(model, Arithmetic::kQuantized, cache);
    set_threads(1);
    const at::Tensor whole = hidden_of(transformer, tokens(40), 40);
    for (const int count : {1, 2, 3}) {
      set_threads(count);
      for (const std::int64_t piece : {1, 7}) {
        EXPECT_TRUE(at::equal(hidden_of(transformer, tokens(40), piece), whole))
            << count << " " << piece;
      }
    }
  }
  set_threads(before);
}

// A head of 64 channels: 256 bytes as floats, 72 and 40 as codes.
TEST(Transformer, KeepsACodedCacheInFewerBytes) {
  const Model model = codes_model(4, ZeroPoint::kSymmetric);
  const auto bytes = [&](CacheType cache) {
    const Transformer transformer(model, Arithmetic::kExact, cache);
    Transformer::State state = transformer.start();
    transformer.extend(state, tokens(50));
    return Transformer::cache_bytes(state);
  };
  const std::int64_t floats = bytes(CacheType::kFloat32);
  EXPECT_EQ(floats, 2 * 2 * 50 * 3 * 256);
  EXPECT_EQ(bytes(CacheType::kCodes8), floats * 72 / 256);
  EXPECT_EQ(bytes(CacheType::kCodes4), floats * 40 / 256);
}

TEST(QuantizedLanguageModel, HoldsTheBytesOfTheCodes) {
  const Transformer model(codes_model(4, ZeroPoint::kSymmetric), Arithmetic::kQuantized);
  const ModelConfig config = wide_config();
  const std::int64_t weights =
      config.layers * (config.hidden * (2 * config.q_width() + 2 * config.kv_width()) +
                       3 * config.hidden * config.ffn);
  // 4.5 bits each; panels are filled up to 16 outputs and their scales to 64 bytes.
  const double blocks = static_cast<double>(model.weight_bytes() - model.head().bytes());
  EXPECT_NEAR(blocks / static_cast<double>(weights) * 8, 4.5, 0.05);
}

}  // namespace
}  // namespace attar
