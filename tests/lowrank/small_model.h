// stories260K with its tokenizer, and what the low-rank passes make of it: real weights and real
// text, seconds a test.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>

#include "compress/calibrate/blockwise.h"
#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/pipeline/block_walk.h"
#include "lowrank/passes.h"
#include "tests/support/random_model.h"

namespace attar::testing {

class SmallModel : public ::testing::Test {
 public:
  void SetUp() override {
    const std::filesystem::path shared = ATTAR_SOURCE_DIR "/../shared/data";
    if (!std::filesystem::exists(shared / "models/stories260K")) {
      GTEST_SKIP() << "needs ../shared/data/models/stories260K";
    }
    set_up_numerics();
    source_ = open_model(shared / "models/stories260K");
    const auto tokenizer = load_tokenizer(shared / "tokenizers/llama2c/tok512.model");
    const auto read = [&](const char* file, std::int64_t sequences) {
      CalibrationConfig config;
      config.text = {shared / "eval" / file};
      config.sequences = sequences;
      config.length = 128;
      return read_calibration(config, *tokenizer, 5);
    };
    calibration_ = read("tinystories_train_first4949.txt", 48);
    held_out_ = read("tinystories_valid_part.txt", 16).ids;
  }

  Model original() const { return Model(source_); }

  // Mean KL(original || changed) over text that no pass has seen, nats.
  double divergence(const Model& changed) const {
    double sum = 0;
    std::int64_t positions = 0;
    for (const auto& window :
         walk_divergence(original(), changed, {held_out_}, [](std::string_view) {})) {
      for (const float nats : window.nats) sum += nats;
      positions += static_cast<std::int64_t>(window.nats.size());
    }
    return sum / static_cast<double>(positions);
  }

  Model cut(SvdConfig config) {
    config.align = 4;
    const Model before = original();
    Model after = before.successor(std::make_shared<MemoryModelStore>());
    report_ = {};
    const RunContext context;
    ModelWork work{before, after, before, &calibration_, nullptr, {}, report_, context};
    SvdPass(config).run(work);
    return after;
  }

  // Block-wise passes on one stream.
  Model through(std::vector<const BlockwisePass*> passes) {
    Model model = original().successor(std::make_shared<MemoryModelStore>());
    bool dense = false;
    for (const BlockwisePass* pass : passes) dense = dense || pass->needs().dense_stream;
    BlockStream stream(model, calibration_, {.dense_stream = dense});
    reports_.clear();
    run_blockwise(
        passes, model, &stream, {}, [](std::int64_t) { return std::nullopt; },
        [&](std::int64_t, const BlockOutcome& outcome) {
          reports_.insert(reports_.end(), outcome.reports.begin(), outcome.reports.end());
        });
    return model;
  }

  static std::int64_t bytes_of(const Model& model) {
    std::int64_t bytes = 0;
    for (std::int64_t index = 0; index < model.config().layers; ++index) {
      const Block block = model.block(index);
      for (const Role role : kRoles) bytes += stored_bytes(block[role].weight);
    }
    return bytes;
  }

  std::shared_ptr<const ModelSource> source_;
  CalibrationTokens calibration_;
  at::Tensor held_out_;
  PassReport report_;
  std::vector<PassReport> reports_;
};

}  // namespace attar::testing
