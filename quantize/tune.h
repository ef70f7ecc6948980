// The parts of quantize.tune that do not walk a recipe: what is learnt from, the loss, and what
// became of the grids.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "compress/core/model.h"
#include "compress/train/teachers.h"
#include "compress/train/trainer.h"

namespace attar {

// Which of `count` windows judge: the last of each of `held_out` even parts, at most half of all;
// one at least. Throws BadInput below two windows.
std::vector<bool> held_out_windows(std::int64_t count, std::int64_t held_out);

// Windows [N, T] int64 for learning and for judging.
struct SplitWindows {
  at::Tensor learn;  // in the order of the text
  at::Tensor judge;
};
// Cut by held_out_windows.
SplitWindows split_windows(const at::Tensor& windows, std::int64_t held_out);

// KL(teacher || student) or its reverse, alone.
class TeacherLoss final : public Objective {
 public:
  TeacherLoss(Teachers teachers, std::string loss, std::int64_t common, bool recompute,
              std::string fingerprint);

  void begin_step(const Batch& batch, std::int64_t step, std::int64_t steps) override;
  std::vector<ObjectiveTerm> add_gradient(Student& student, const Batch& micro,
                                          double scale) override;
  std::string fingerprint() const override { return fingerprint_; }

 private:
  Teachers teachers_;
  ResponseTerm term_;
  std::int64_t common_;  // tokens that both know
  bool recompute_;
  std::string fingerprint_;
  std::int64_t next_row_ = 0;  // of the batch
};

// Norms and biases learn in shares of their mean magnitude, as scales do in shares of their own,
// and codes in steps from one to the next.
void use_own_sizes(Student& student);

// How far grids moved.
struct GridMoves {
  std::int64_t layers = 0;  // in codes
  std::int64_t codes = 0;   // that differ: 0
  double mean_move = 0;     // of a scale, relative
  double largest_move = 0;
  double largest_rounding = 0;  // from what was learnt to what the file holds, relative
};
GridMoves grid_moves(const Model& before, const Model& after, Student& student);

// Layers of the model that are in codes, also as the base of a correction; embedding and a head of
// its own among them.
std::int64_t layers_in_codes(const Model& model);

}  // namespace attar
