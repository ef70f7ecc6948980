// A student held to a teacher by a composition of losses.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "compress/train/teachers.h"
#include "compress/train/trainer.h"
#include "distill/feature_loss.h"
#include "distill/loss_plan.h"
#include "distill/student_samples.h"
#include "distill/taid.h"

namespace attar {

class Distillation final : public Objective {
 public:
  // Of the teachers exactly one; with none, the only loss is cross entropy. Adds learned
  // projections to the student's parameters. `first` is a batch of the training text, from which
  // scales and closed projections are worked out.
  Distillation(
      LossPlan plan, Teachers teachers, Student& student, const Batch& first, bool recompute,
      const std::function<void()>& check_stop = [] {});

  // From now on some windows are the student's own.
  void learn_from(StudentSamples samples) { samples_ = std::move(samples); }

  Batch batch_of(Batch text, const Student& student, std::int64_t step) override {
    return samples_ ? samples_->batch_of(text, student, step) : text;
  }
  void begin_step(const Batch& batch, std::int64_t step, std::int64_t steps) override;
  std::vector<ObjectiveTerm> add_gradient(Student& student, const Batch& micro,
                                          double scale) override;
  void finished_step(std::int64_t step, std::int64_t steps, double mean) override;
  nlohmann::json state() const override;
  void restore(const nlohmann::json& state) override;
  std::string fingerprint() const override { return fingerprint_; }
  void set_fingerprint(std::string text) { fingerprint_ = std::move(text); }

 private:
  LossPlan plan_;
  Teachers teachers_;
  std::optional<StudentSamples> samples_;
  bool recompute_;
  std::string fingerprint_;
  std::vector<HiddenLoss> hidden_;
  std::vector<RelationLoss> relations_;
  std::vector<TaidSchedule> taid_;   // one a response with a schedule, in their order
  std::vector<ResponseTerm> terms_;  // of this step
  std::vector<double> hidden_weights_, relation_weights_;
  std::int64_t next_sequence_ = 0;  // of the batch
};

}  // namespace attar
