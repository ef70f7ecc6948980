// The loop: batches, gradients added up over micro-batches, AdamW, state on disk. What is learnt
// stands in an Objective.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "compress/core/pass.h"
#include "compress/train/adamw.h"
#include "compress/train/student.h"
#include "compress/train/training_text.h"

namespace attar {

// Options that every pass which learns from text has.
struct TrainConfig {
  std::vector<std::string> text;
  std::string separator;
  bool end_of_text = true;
  std::int64_t steps = 1000;
  std::int64_t batch = 8;
  std::int64_t length = 512;
  double learning_rate = 1e-4;
  double warmup = 0.02;
  double floor = 0.1;
  double weight_decay = 0.1;
  double clip = 1.0;
  double epsilon = 1e-8;  // AdamW's, against the size of gradients
  double average = 0.0;
  bool recompute = false;
  bool shift = true;
  double save_seconds = 60;

  template <class Config, class Visit>
  static void train_fields(Visit&& visit) {
    using C = Config;
    visit("text", &C::text, Any{},
          "Text files to learn from: UTF-8, or *.jsonl with {\"text\"} or {\"prompt\", "
          "\"completion\"} a line.");
    visit("separator", &C::separator, Any{},
          "Cuts text files into documents; empty: a file is one document.");
    visit("end_of_text", &C::end_of_text, Any{}, "The tokenizer's EOS after each document.");
    visit("steps", &C::steps, Range<std::int64_t>{1, 100'000'000}, "Updates of the weights.");
    visit("batch", &C::batch, Range<std::int64_t>{1, 1 << 20}, "Sequences of an update.");
    visit("length", &C::length, Range<std::int64_t>{2, 1 << 17}, "Tokens of a sequence.");
    visit("learning_rate", &C::learning_rate, Range{0.0, 1.0}, "At its highest, after warm-up.");
    visit("warmup", &C::warmup, Range{0.0, 1.0}, "Share of the steps that warm up.");
    visit("floor", &C::floor, Range{0.0, 1.0}, "Share of the learning rate at the last step.");
    visit("weight_decay", &C::weight_decay, Range{0.0, 1.0}, "Of matrices; not norms and biases.");
    visit("clip", &C::clip, Range{0.0, 1e6}, "Largest norm of the gradient; 0: none.");
    visit("average", &C::average, Range{0.0, 0.999999},
          "Decay of an average of the weights that is kept in their place; 0: none.");
    visit("recompute", &C::recompute, Any{},
          "Run blocks again for their gradient: the same bits, less memory, more time.");
    visit("shift", &C::shift, Any{}, "Cut the text elsewhere in each epoch.");
    visit("save_seconds", &C::save_seconds, Range{0.0, 86400.0},
          "Seconds between two states on disk; never changes a result.");
  }
  double tokens() const { return static_cast<double>(steps * batch * length); }  // of all steps
  AdamWConfig optimizer() const;
  Schedule schedule() const;
};

// What one micro-batch gave: sums over its tokens that count.
struct ObjectiveTerm {
  std::string name;
  double sum = 0;
};

// A loss on a student. Its gradient of a batch is the sum of those of its micro-batches.
class Objective {
 public:
  virtual ~Objective() = default;
  // What a step learns from in place of a batch of the text, of the same size.
  virtual Batch batch_of(Batch text, const Student& /*student*/, std::int64_t /*step*/) {
    return text;
  }
  // Before the micro-batches of a step, which come in the order of the batch.
  virtual void begin_step(const Batch& /*batch*/, std::int64_t /*step*/, std::int64_t /*steps*/) {}
  // Adds to the student's gradients; `scale` is one over the tokens of the whole batch that count.
  // The first term is the loss as it is minimised.
  virtual std::vector<ObjectiveTerm> add_gradient(Student& student, const Batch& micro,
                                                  double scale) = 0;
  // `mean` is the first term per token.
  virtual void finished_step(std::int64_t /*step*/, std::int64_t /*steps*/, double /*mean*/) {}
  virtual nlohmann::json state() const { return {}; }
  virtual void restore(const nlohmann::json& /*state*/) {}
  virtual std::string fingerprint() const { return {}; }
};

struct TrainedStep {
  std::int64_t step = 0;
  std::vector<ObjectiveTerm> means;
  double gradient_norm = 0;
  double rate = 0;
};

struct TrainOutcome {
  std::vector<TrainedStep>
      history;                   // at most about 200 of the steps, the first and last among them
  std::int64_t resumed_at = 0;   // steps that an earlier process had done
  std::int64_t tokens = 0;       // trained on by this process
  std::int64_t skipped = 0;      // steps without an update: the gradient was not finite
  double seconds = 0;            // of the steps of this process
  double processor_seconds = 0;  // of all its threads
  std::string note;              // why a state that is there could not be used; else empty
};

// Sequences that go through the model together: as many as make kMicroTokens, at least one. Fixed,
// so that sums have one order.
inline constexpr std::int64_t kMicroTokens = 1024;
std::int64_t micro_sequences(std::int64_t length);

// Runs all steps. `folder` keeps "train.safetensors" from time to time, when a signal asks to stop
// (then throws Stopped), and at the end; a state that is there is gone on from. `data_id` names
// tokens and starting weights. Throws NumericRefusal when three steps in a row have no finite
// gradient.
TrainOutcome train(Student& student, Objective& objective, const TrainingWindows& windows,
                   const TrainConfig& config, const std::string& data_id,
                   const std::filesystem::path& folder, const RunContext& context);

// Plain next-token training: the mean of -log q[next token].
class NextToken final : public Objective {
 public:
  explicit NextToken(bool recompute) : recompute_(recompute) {}
  std::vector<ObjectiveTerm> add_gradient(Student& student, const Batch& micro,
                                          double scale) override;
  std::string fingerprint() const override { return "next_token"; }

 private:
  bool recompute_;
};

}  // namespace attar
