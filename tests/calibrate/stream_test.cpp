#include "compress/calibrate/stream.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rand.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>

#include "compress/calibrate/blockwise.h"
#include "compress/calibrate/importance.h"
#include "compress/core/block_runner.h"
#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "tests/support/random_model.h"

namespace attar {
namespace {

using linalg::GramStatistics;
using testing::random_model;

CalibrationTokens some_tokens(std::int64_t sequences = 6, std::int64_t length = 20) {
  const at::Tensor ids = (at::arange(sequences * length, at::kLong) * 7).remainder(101);
  return calibration_of(ids.reshape({sequences, length}));
}

// As many as hold 1024 tokens, unless the recipe says so.
TEST(ReadCalibration, SaysHowManySequencesGoTogether) {
  CalibrationConfig config;
  config.text = {ATTAR_SOURCE_DIR "/recipes/tinyworld/README.md"};
  config.sequences = 4;
  config.length = 64;
  const auto tokenizer = load_tokenizer(ATTAR_SOURCE_DIR "/recipes/tinyworld/teacher");
  EXPECT_EQ(read_calibration(config, *tokenizer, 5).batch, 1024 / 64);
  config.batch = 3;
  EXPECT_EQ(read_calibration(config, *tokenizer, 5).batch, 3);
}

std::vector<at::Tensor> grams(BlockStream& stream, const Block& block) {
  std::vector<at::Tensor> found;
  for (const auto& statistics : stream.collect(block, {})) found.push_back(statistics->gram);
  return found;
}

// By llama.cpp's names; q, k and v read one input.
TEST(ImportanceMatrices, AreTheMeanSquaresOfTheInputs) {
  const Model model = random_model();
  const CalibrationTokens tokens = some_tokens();
  const io::ImportanceMatrix matrix = importance_matrix(model, tokens, 4, {});
  EXPECT_EQ(matrix.means.size(), 7U * static_cast<std::size_t>(model.config().layers));
  EXPECT_EQ(matrix.chunks, 6U);
  EXPECT_EQ(matrix.chunk_size, 20U);
  EXPECT_EQ(matrix.means.at("blk.0.attn_q.weight"), matrix.means.at("blk.0.attn_v.weight"));
  BlockStream stream(model, tokens, {});
  stream.collect(model.block(0), {});
  stream.advance(model.block(0));
  const at::Tensor gram = stream.collect(model.block(1), {})[3]->gram;
  const std::vector<float>& down = matrix.means.at("blk.1.ffn_down.weight");
  ASSERT_EQ(static_cast<std::int64_t>(down.size()), gram.size(0));
  for (std::int64_t j = 0; j < gram.size(0); ++j) {
    const double mean = gram[j][j].item<double>() / 120;
    EXPECT_NEAR(static_cast<double>(down[j]), mean, 1e-5 * mean) << j;
  }
}

class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() /
              ("attar-" + std::to_string(getpid()) + "-" + name)) {
    std::filesystem::remove(path_);
  }
  ~TemporaryFile() { std::filesystem::remove(path_); }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The four inputs of a block, each multiplied out by hand.
TEST(BlockStream, StatisticsAreThoseOfTheInputs) {
  const Model model = random_model();
  const ModelConfig& config = model.config();
  BlockStream stream(model, some_tokens(), {});
  const Block block = model.block(0);
  const BlockRunner runner(config, block, rope_table(config, 20));
  const at::Tensor x = embed(model.embedding(), some_tokens().ids);
  const at::Tensor a = runner.attention_input(x), mixed = runner.attention(a, nullptr);
  const at::Tensor h = runner.add_attention(x, mixed), m = runner.mlp_input(h);
  const std::array<at::Tensor, 4> inputs = {a, mixed, m, runner.gated(m)};
  const auto found = stream.collect(block, {});
  for (const Site site : kSites) {
    const at::Tensor rows = inputs[index_of(site)].flatten(0, 1).to(at::kDouble);
    const at::Tensor expected = rows.t().mm(rows);
    const GramStatistics& got = *found[index_of(site)];
    EXPECT_EQ(got.tokens, 120) << to_string(site);
    EXPECT_LE((got.gram - expected).abs().max().item<double>(),
              1e-5 * expected.abs().max().item<double>())
        << to_string(site);
    EXPECT_LE((got.mean_absolute() - rows.abs().mean(0)).abs().max().item<double>(), 1e-5);
  }
}

// A token of weight w counts w times in sums, and as its root in a sample; other blocks and inputs
// have other weights. The largest value is of tokens as they are.
TEST(BlockStream, TokensCountAsTheirWeightsSay) {
  const Model model = random_model();
  CalibrationTokens tokens = some_tokens();
  tokens.weights = at::ones({model.config().layers, 4, 20});
  tokens.weights.select(2, 0) = 9;
  tokens.weights[1][2].select(0, 5) = 4;
  BlockStream plain(model, some_tokens(), {}), weighted(model, tokens, {.batch = 2});
  for (BlockStream* stream : {&plain, &weighted}) stream->advance(model.block(0));
  const Block block = model.block(1);
  const std::vector<at::Tensor> found = grams(weighted, block);
  const auto rows = plain.sample(block, {}, 1 << 20), scaled = weighted.sample(block, {}, 1 << 20);
  for (const Site site : kSites) {
    const std::size_t at = index_of(site);
    const at::Tensor x = rows[at].rows.to(at::kDouble);
    ASSERT_EQ(x.size(0), 120);
    const at::Tensor w =
        tokens.weights[1][static_cast<std::int64_t>(at)].repeat({6}).unsqueeze(1).to(at::kDouble);
    const at::Tensor expected = x.t().mm(x * w);
    EXPECT_LE((found[at] - expected).abs().max().item<double>(),
              1e-5 * expected.abs().max().item<double>())
        << to_string(site);
    EXPECT_LE((scaled[at].rows - x * w.sqrt()).abs().max().item<double>(), 1e-5);
    EXPECT_TRUE(at::equal(scaled[at].max_absolute, rows[at].max_absolute));
  }
}

TEST(BlockStream, BatchAndThreadsChangeNoBit) {
  const Model model = random_model();
  std::vector<std::vector<at::Tensor>> found;
  for (const auto& [batch, threads] : {std::pair{1, 1}, {4, 1}, {8, 2}, {5, 2}}) {
    set_threads(threads);
    BlockStream stream(model, some_tokens(), {.batch = batch});
    stream.advance(model.block(0));
    stream.advance(model.block(1));
    found.push_back(grams(stream, model.block(2)));
  }
  for (const auto& one : found) {
    for (std::size_t site = 0; site < one.size(); ++site) {
      EXPECT_TRUE(at::equal(one[site], found.front()[site])) << site;
    }
  }
}

// A later input sees what was changed at an earlier one.
TEST(BlockStream, SequentialSeesChangesOfEarlierLayers) {
  const Model model = random_model();
  BlockStream stream(model, some_tokens(), {});
  Block block = model.block(0);
  std::vector<at::Tensor> seen;
  stream.sequential(block, {}, [&](Site site, const GramStatistics& statistics) {
    seen.push_back(statistics.gram.clone());
    for (const Role role : kRoles) {
      if (site_of(role) == site) block[role].weight = DenseWeight{dense(block[role].weight) * 0.9};
    }
  });
  const std::vector<at::Tensor> before = grams(stream, model.block(0));
  const std::vector<at::Tensor> after = grams(stream, block);
  EXPECT_TRUE(at::equal(seen[0], before[0]));
  for (std::size_t site = 1; site < 4; ++site) {
    EXPECT_FALSE(at::equal(seen[site], before[site])) << site;
    EXPECT_TRUE(at::equal(seen[site], after[site])) << site;
  }
}

// Rows [0, rows) of `weight` (or columns) only.
Weight cut(const Weight& weight, std::int64_t dim, std::int64_t count) {
  return DenseWeight{dense(weight).narrow(dim, 0, count).contiguous()};
}

// Pruning inside of a visit: one key-value head of two, and 96 neurons of 160, stay.
TEST(BlockStream, SequentialFollowsABlockThatGetsNarrower) {
  const Model model = random_model();
  const auto narrow_attention = [&](Block& block) {
    const std::int64_t q = 3 * model.config().head_dim, kv = model.config().head_dim;
    block[Role::kQuery].weight = cut(block[Role::kQuery].weight, 0, q);
    for (const Role role : {Role::kKey, Role::kValue})
      block[role].weight = cut(block[role].weight, 0, kv);
    block[Role::kOutput].weight = cut(block[Role::kOutput].weight, 1, q);
  };
  const auto narrow_mlp = [&](Block& block) {
    for (const Role role : {Role::kGate, Role::kUp})
      block[role].weight = cut(block[role].weight, 0, 96);
    block[Role::kDown].weight = cut(block[Role::kDown].weight, 1, 96);
  };
  Block narrow = model.block(0);
  narrow_attention(narrow);
  narrow_mlp(narrow);
  BlockStream beforehand(model, some_tokens(), {});
  const std::vector<at::Tensor> expected = grams(beforehand, narrow);
  beforehand.advance(narrow);

  BlockStream stream(model, some_tokens(), {});
  Block block = model.block(0);
  stream.sequential(block, {}, [&](Site site, const GramStatistics& statistics) {
    if (site == Site::kOutputInput) narrow_attention(block);
    if (site == Site::kMlpInput) {
      EXPECT_TRUE(at::equal(statistics.gram, expected[index_of(site)]));
    }
    if (site == Site::kDownInput) narrow_mlp(block);
  });
  stream.advance(block);
  const std::vector<at::Tensor> next = grams(beforehand, model.block(1));
  const std::vector<at::Tensor> found = grams(stream, model.block(1));
  for (std::size_t site = 0; site < 4; ++site) EXPECT_TRUE(at::equal(found[site], next[site]));
}

// What a sequential visit has computed already is used by advance, and only while it holds.
TEST(BlockStream, AdvanceAfterAVisitEqualsAdvanceAlone) {
  const Model model = random_model();
  const auto next_grams = [&](bool visit, bool change_afterwards) {
    BlockStream stream(model, some_tokens(), {});
    Block block = model.block(0);
    if (visit) {
      stream.sequential(block, {}, [&](Site site, const GramStatistics&) {
        if (site == Site::kOutputInput) {
          block[Role::kOutput].weight = DenseWeight{dense(block[Role::kOutput].weight) * 0.9};
        }
      });
    } else {
      block[Role::kOutput].weight = DenseWeight{dense(block[Role::kOutput].weight) * 0.9};
    }
    if (change_afterwards) {
      block[Role::kValue].weight = DenseWeight{dense(block[Role::kValue].weight) * 1.1};
    }
    stream.advance(block);
    return grams(stream, model.block(1));
  };
  for (const bool change : {false, true}) {
    const auto visited = next_grams(true, change), alone = next_grams(false, change);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(visited[i], alone[i])) << i;
  }
}

// What the dense stream hands out, each input multiplied out by hand: the unchanged model's against
// those of a model with a changed block before and a change on the way.
TEST(BlockStream, CrossGramsAreThoseOfDenseAndChangedInputs) {
  const Model model = random_model();
  const ModelConfig& config = model.config();
  const RopeTable rope = rope_table(config, 20);
  Block first = model.block(0), second = model.block(1);
  first[Role::kDown].weight = DenseWeight{dense(first[Role::kDown].weight) * 0.7};
  BlockStream stream(model, some_tokens(), {.dense_stream = true});
  stream.advance(first, model.block(0));
  std::vector<at::Tensor> crosses, residuals;
  const auto change = [](Block& block, Role role) {
    block[role].weight = DenseWeight{dense(block[role].weight) * 0.8};
  };
  stream.sequential(second, model.block(1), {},
                    [&](Site site, const GramStatistics&, const linalg::CrossGram& cross) {
                      EXPECT_EQ(cross.tokens, 120);
                      crosses.push_back(cross.gram);
                      residuals.push_back(cross.residual);
                      if (site == Site::kAttentionInput) change(second, Role::kValue);
                      if (site == Site::kMlpInput) change(second, Role::kUp);
                    });
  const at::Tensor embedded = embed(model.embedding(), some_tokens().ids);
  // What each site reads, and what the output of the layer there is added to.
  struct Lane {
    std::array<at::Tensor, 4> inputs, added_to;
  };
  const auto lane = [&](const Block& before, const Block& block) {
    const at::Tensor x = BlockRunner(config, before, rope).forward(embedded);
    const BlockRunner runner(config, block, rope);
    const at::Tensor a = runner.attention_input(x).clone(), mixed = runner.attention(a, nullptr);
    const at::Tensor h = runner.add_attention(x.clone(), mixed).clone();
    const at::Tensor m = runner.mlp_input(h);
    return Lane{{a, mixed.clone(), m.clone(), runner.gated(m).clone()},
                {at::Tensor(), x, at::Tensor(), h}};
  };
  const Lane unchanged = lane(model.block(0), model.block(1)), changed = lane(first, second);
  const auto near = [](const at::Tensor& found, const at::Tensor& dense, const at::Tensor& inputs) {
    const at::Tensor expected =
        dense.flatten(0, 1).to(at::kDouble).t().mm(inputs.flatten(0, 1).to(at::kDouble));
    return (found - expected).abs().max().item<double>() <=
           1e-5 * expected.abs().max().item<double>();
  };
  for (const Site site : kSites) {
    const auto place = static_cast<std::size_t>(index_of(site));
    EXPECT_TRUE(near(crosses[place], unchanged.inputs[place], changed.inputs[place]))
        << to_string(site);
    ASSERT_EQ(residuals[place].defined(), changed.added_to[place].defined()) << to_string(site);
    if (!residuals[place].defined()) continue;
    const at::Tensor lost = unchanged.added_to[place] - changed.added_to[place];
    EXPECT_TRUE(near(residuals[place], lost, changed.inputs[place])) << to_string(site);
  }
}

TEST(BlockStream, DenseStreamChangesNoStatisticAndNoBitByBatchOrThreads) {
  const Model model = random_model();
  std::vector<std::vector<at::Tensor>> found, lost;
  Block changed = model.block(0);
  changed[Role::kOutput].weight = DenseWeight{dense(changed[Role::kOutput].weight) * 0.5};
  for (const auto& [batch, threads] : {std::pair{1, 1}, {4, 2}, {5, 1}}) {
    set_threads(threads);
    BlockStream stream(model, some_tokens(), {.batch = batch, .dense_stream = true});
    stream.advance(changed, model.block(0));
    found.emplace_back(), lost.emplace_back();
    const Block block = model.block(1);
    stream.sequential(block, block, {},
                      [&](Site, const GramStatistics& own, const linalg::CrossGram& cross) {
                        found.back().push_back(own.gram.clone());
                        found.back().push_back(cross.gram);
                        if (cross.residual.defined()) lost.back().push_back(cross.residual);
                      });
  }
  for (const auto& one : found) {
    for (std::size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(at::equal(one[i], found[0][i])) << i;
  }
  for (const auto& one : lost) {
    ASSERT_EQ(one.size(), 2);  // o and down
    EXPECT_TRUE(at::equal(one[0], lost[0][0]) && at::equal(one[1], lost[0][1]));
  }
  BlockStream alone(model, some_tokens(), {});
  alone.advance(changed);
  const std::vector<at::Tensor> own = grams(alone, model.block(1));
  for (std::size_t site = 0; site < 4; ++site) {
    EXPECT_TRUE(at::equal(own[site], found[0][2 * site])) << site;
  }
}

// Inputs come from the changed model, targets from the unchanged one or from both.
TEST(BlockStream, EndsAreTheInputsAndTheUnchangedBlocksOutputs) {
  const Model model = random_model();
  const RopeTable rope = rope_table(model.config(), 20);
  Block first = model.block(0);
  first[Role::kDown].weight = DenseWeight{dense(first[Role::kDown].weight) * 0.7};
  Block second = model.block(1);
  second[Role::kUp].weight = DenseWeight{dense(second[Role::kUp].weight) * 0.5};
  CalibrationTokens tokens = some_tokens();
  tokens.weights = at::rand({3, 4, 20}) + 0.5;
  BlockStream stream(model, tokens, {.dense_stream = true});
  stream.advance(first, model.block(0));
  const at::Tensor embedded = embed(model.embedding(), tokens.ids);
  const at::Tensor changed = BlockRunner(model.config(), first, rope).forward(embedded);
  const at::Tensor dense = BlockRunner(model.config(), model.block(0), rope).forward(embedded);
  const BlockRunner original(model.config(), model.block(1), rope);
  for (const double share : {1.0, 0.25}) {
    const BlockEnds ends = stream.ends(second, model.block(1), share, {});
    EXPECT_TRUE(at::equal(ends.inputs, changed));
    const at::Tensor expected =
        share * original.forward(dense) + (1 - share) * original.forward(changed);
    EXPECT_LE((ends.targets - expected).abs().max().item<double>(), 1e-6);
    EXPECT_TRUE(at::equal(ends.weights, tokens.weights[1][3]));
  }
  stream.advance(second, model.block(1));
  const at::Tensor next = BlockRunner(model.config(), second, rope).forward(changed);
  EXPECT_TRUE(at::equal(stream.ends(model.block(2), model.block(2), 1, {}).inputs, next));
}

TEST(BlockStream, RefusesDenseVisitsWithoutADenseStream) {
  const Model model = random_model();
  BlockStream plain(model, some_tokens(), {}), both(model, some_tokens(), {.dense_stream = true});
  const Block block = model.block(0);
  EXPECT_THROW(plain.sequential(block, block, {},
                                [](Site, const GramStatistics&, const linalg::CrossGram&) {}),
               std::logic_error);
  EXPECT_THROW(both.advance(block), std::logic_error);
}

// A change of layers that come before the site is seen, as structured pruning makes them.
TEST(BlockStream, AChangeBeforeTheSiteIsComputedAgain) {
  const Model model = random_model();
  BlockStream stream(model, some_tokens(), {});
  Block block = model.block(0);
  std::vector<at::Tensor> seen;
  stream.sequential(block, {}, [&](Site site, const GramStatistics& statistics) {
    seen.push_back(statistics.gram.clone());
    const auto halve = [&](Role role) {
      block[role].weight = DenseWeight{dense(block[role].weight) * 0.5};
    };
    if (site == Site::kOutputInput) halve(Role::kValue);
    if (site == Site::kMlpInput) halve(Role::kOutput);
  });
  EXPECT_TRUE(at::equal(seen[3], grams(stream, block)[3]));
}

TEST(BlockStream, StoredStatisticsAreReusedAndNeverStale) {
  const Model model = random_model();
  const TemporaryFile file("store.h5");
  const auto store = std::make_shared<StatisticsStore>(file.path());
  std::vector<at::Tensor> first;
  {
    BlockStream stream(model, some_tokens(), {.store = store});
    stream.advance(model.block(0));
    first = grams(stream, model.block(1));
    EXPECT_EQ(store->entries(), 4);
  }
  {  // the same again: nothing new
    BlockStream stream(model, some_tokens(), {.store = store});
    stream.advance(model.block(0));
    const auto again = grams(stream, model.block(1));
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(again[i], first[i])) << i;
    EXPECT_EQ(store->entries(), 4);
  }
  {  // an upstream block changed: all new
    Block changed = model.block(0);
    changed[Role::kDown].weight = DenseWeight{dense(changed[Role::kDown].weight) * 1.01};
    BlockStream stream(model, some_tokens(), {.store = store});
    stream.advance(changed);
    EXPECT_FALSE(at::equal(grams(stream, model.block(1))[0], first[0]));
    EXPECT_EQ(store->entries(), 8);
  }
  {  // v changed inside the block: its own input is known, what comes after is not
    Block changed = model.block(1);
    changed[Role::kValue].weight = DenseWeight{dense(changed[Role::kValue].weight) * 1.01};
    BlockStream stream(model, some_tokens(), {.store = store});
    stream.advance(model.block(0));
    EXPECT_TRUE(at::equal(grams(stream, changed)[0], first[0]));
    EXPECT_EQ(store->entries(), 11);
  }
  {  // another text: all new
    BlockStream stream(model, some_tokens(5), {.store = store});
    stream.advance(model.block(0));
    grams(stream, model.block(1));
    EXPECT_EQ(store->entries(), 15);
  }
  {  // the same text, weighted: all new
    CalibrationTokens tokens = some_tokens();
    tokens.weights = at::ones({model.config().layers, 4, 20});
    BlockStream stream(model, tokens, {.store = store});
    stream.advance(model.block(0));
    grams(stream, model.block(1));
    EXPECT_EQ(store->entries(), 19);
  }
}

TEST(StatisticsStore, HalvesMergeToTheWhole) {
  const Model model = random_model();
  const CalibrationTokens whole = some_tokens(6);
  const CalibrationTokens one = calibration_of(whole.ids.narrow(0, 0, 3));
  const CalibrationTokens two = calibration_of(whole.ids.narrow(0, 3, 3));
  const TemporaryFile f1("one.h5"), f2("two.h5"), f3("whole.h5");
  const auto s1 = std::make_shared<StatisticsStore>(f1.path());
  const auto s2 = std::make_shared<StatisticsStore>(f2.path());
  const auto merged = std::make_shared<StatisticsStore>(f3.path());
  grams(*std::make_unique<BlockStream>(model, one, StreamOptions{.store = s1}), model.block(0));
  grams(*std::make_unique<BlockStream>(model, two, StreamOptions{.store = s2}), model.block(0));
  EXPECT_EQ(merge_stores(*s1, one.sha256, *s2, two.sha256, *merged, whole.sha256), 4);

  // The merged store answers for the whole text, to the rounding of float32 partial sums.
  BlockStream from_store(model, whole, {.store = merged});
  const auto found = grams(from_store, model.block(0));
  EXPECT_EQ(merged->entries(), 4);
  BlockStream direct(model, whole, {});
  const auto expected = grams(direct, model.block(0));
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_LE((found[i] - expected[i]).abs().max().item<double>(),
              120 * 6e-8 * expected[i].abs().max().item<double>())
        << i;
  }
}

TEST(StatisticsStore, ATornFileIsRebuiltAndSaidSo) {
  const TemporaryFile file("torn.h5");
  EXPECT_FALSE(StatisticsStore(file.path()).rebuilt());
  std::filesystem::resize_file(file.path(), 100);
  EXPECT_TRUE(StatisticsStore(file.path()).rebuilt());
  EXPECT_FALSE(StatisticsStore(file.path()).rebuilt());
  std::ofstream(file.path()) << std::string(64, '\0');  // its header never came to the disk
  EXPECT_TRUE(StatisticsStore(file.path()).rebuilt());
}

TEST(StatisticsStore, AFileOfAnotherKindOrOfAnotherProcessStays) {
  const TemporaryFile file("other.h5");
  std::ofstream(file.path()) << "somebody's notes";
  EXPECT_THROW(StatisticsStore(file.path()), BadInput);
  EXPECT_EQ(std::filesystem::file_size(file.path()), 16u);
  std::filesystem::remove(file.path());
  { StatisticsStore made(file.path()); }
  std::filesystem::resize_file(file.path(), 100);  // as it is while it is written
  const int descriptor = ::open(file.path().c_str(), O_RDONLY);
  ASSERT_EQ(::flock(descriptor, LOCK_EX), 0);
  EXPECT_THROW(StatisticsStore(file.path()), IoError);
  EXPECT_EQ(std::filesystem::file_size(file.path()), 100u);
  ::close(descriptor);
}

class HalvingPass final : public BlockwisePass {
 public:
  explicit HalvingPass(Role role) : role_(role) {}
  std::string_view name() const override { return "test.halve"; }
  nlohmann::json options() const override { return {}; }
  std::vector<PlannedLayer> plan(const ModelConfig&) const override { return {}; }
  std::int64_t working_bytes(const ModelConfig&) const override { return 0; }
  void run_block(BlockWork& work) const override {
    work.block[role_].weight = DenseWeight{dense(work.block[role_].weight) / 2};
    work.report.skipped.push_back({layer_name(work.index, role_), "halved"});
  }

 private:
  Role role_;
};

TEST(RunBlockwise, GoesOnFromRestoredBlocksToTheSameModel) {
  const HalvingPass first(Role::kUp), second(Role::kKey);
  const std::array<const BlockwisePass*, 2> passes = {&first, &second};
  Model straight = random_model();
  std::map<std::int64_t, BlockOutcome> kept;
  run_blockwise(
      passes, straight, nullptr, {}, [](std::int64_t) { return std::nullopt; },
      [&](std::int64_t index, const BlockOutcome& o) { kept[index] = o; });
  ASSERT_EQ(kept.size(), 3u);
  EXPECT_EQ(kept[2].reports.size(), 2u);

  Model resumed = random_model();
  int done = 0;
  run_blockwise(
      passes, resumed, nullptr, {},
      [&](std::int64_t index) { return index < 2 ? std::optional(kept[index]) : std::nullopt; },
      [&](std::int64_t, const BlockOutcome&) { ++done; });
  EXPECT_EQ(done, 1);
  for (std::int64_t i = 0; i < 3; ++i) {
    for (const Role role : kRoles) {
      EXPECT_TRUE(
          at::equal(dense(straight.block(i)[role].weight), dense(resumed.block(i)[role].weight)));
    }
  }
}

TEST(RunBlockwise, StopsWhenASignalAsks) {
  const HalvingPass pass(Role::kUp);
  const std::array<const BlockwisePass*, 1> passes = {&pass};
  Model model = random_model();
  std::atomic<bool> stop = false;
  RunContext context;
  context.stop = &stop;
  int done = 0;
  EXPECT_THROW(run_blockwise(
                   passes, model, nullptr, context, [](std::int64_t) { return std::nullopt; },
                   [&](std::int64_t, const BlockOutcome&) { stop = ++done == 2; }),
               Stopped);
  EXPECT_EQ(done, 2);
}

TEST(RunBlockwise, RefusesANaNBeforeAnyWorkOnIt) {
  class NanSource final : public ModelStore {
   public:
    std::optional<Block> read(std::int64_t index) const override {
      Block block = testing::RandomSource().read_block(index);
      block[Norm::kMlp][3] = std::numeric_limits<float>::quiet_NaN();
      return block;
    }
    void write(std::int64_t, const Block&) override {}
    std::optional<OuterWeights> read_outer() const override { return std::nullopt; }
    void write_outer(const OuterWeights&) override {}
  };
  const HalvingPass pass(Role::kUp);
  const std::array<const BlockwisePass*, 1> passes = {&pass};
  Model model(std::make_shared<testing::RandomSource>(), std::make_shared<NanSource>());
  EXPECT_THROW(run_blockwise(
                   passes, model, nullptr, {}, [](std::int64_t) { return std::nullopt; },
                   [](std::int64_t, const BlockOutcome&) {}),
               NumericRefusal);
}

}  // namespace
}  // namespace attar
