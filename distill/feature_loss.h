// Losses on what happens inside of the models: hidden states and relations between tokens. The
// mathematics; the classes at the end walk a student.
//
// Shapes: N rows (tokens), S student width, C teacher width, T tokens of a sequence.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/train/live_teacher.h"
#include "compress/train/student.h"
#include "distill/loss_plan.h"

namespace attar {

// What of a teacher's channels counts and how much.
struct ChannelScales {
  at::Tensor inverse_deviation;  // [C] float32: 1 / standard deviation; 0 for massive channels
  std::int64_t massive = 0;      // how many are left out
};

// Massive: mean square above `massive` times the median one (Sun et al. 2024, arXiv:2402.17762:
// a few channels carry values hundreds of times the others and would be the whole loss).
//   states  [N, C] float32
ChannelScales channel_scales(const at::Tensor& states, double massive);

// Least squares over all rows that were added: the P [S, C] with the smallest
// |student P - teacher|^2, in float64, with a ridge of 1e-6 of the mean of the diagonal.
class ClosedProjection {
 public:
  void add(const at::Tensor& student, const at::Tensor& teacher);
  at::Tensor solve() const;  // throws NumericRefusal where the rows are not finite, or all zero

 private:
  at::Tensor gram_, cross_;  // [S, S], [C, S] double
};

// Sum over counted rows of the mean over counted channels of ((student P - teacher) / deviation)^2.
struct HiddenGradient {
  double loss = 0;
  at::Tensor student;     // [N, S]: scale * gradient
  at::Tensor projection;  // [S, C]: scale * gradient; undefined without a projection
};
//   projection  [S, C], or undefined: widths agree
//   counts      [N] float32: 1 or 0
HiddenGradient hidden_gradient(const at::Tensor& student, const at::Tensor& teacher,
                               const at::Tensor& projection, const ChannelScales& scales,
                               const at::Tensor& counts, double scale);

// KL between relations softmax(X X^T / sqrt(width / heads)), X cut into `heads`, summed over tokens
// and averaged over heads.
struct RelationGradient {
  double loss = 0;
  at::Tensor student;  // [B, T, S]: scale * gradient
};
//   student [B, T, S], teacher [B, T, C]; heads divides both widths
RelationGradient relation_gradient(const at::Tensor& student, const at::Tensor& teacher,
                                   std::int64_t heads, double scale);

// The most, up to 64, that divide all of them.
std::int64_t relation_heads(const std::vector<std::int64_t>& widths);

// hidden_gradient at the boundaries of a plan.
class HiddenLoss {
 public:
  HiddenLoss(const HiddenPart& part, const ModelConfig& student, const ModelConfig& teacher);

  // Before the first step: what the teacher read last and the student's states on the same tokens,
  // once for scales, as often as there are tokens for projections.
  void look(const Activations& student, const LiveTeacher& teacher);
  bool projects() const { return projects_; }
  // Fits projections to all that was seen; learned ones join the student's parameters.
  void settle(Student& student);

  // Adds weight * scale * gradient of the boundary's loss to `total` [B, T, S]; the loss without
  // weight, averaged over boundaries; 0 at a boundary that is not compared. `state` is the
  // student's, rows [first, first + B) of the batch.
  double add(std::int64_t boundary, const at::Tensor& state, const at::Tensor& counts,
             const LiveTeacher& teacher, std::int64_t first, double weight, double scale,
             Student& student, at::Tensor& total) const;

  // The boundary of the teacher that one of the student is compared with.
  static std::int64_t teacher_boundary(std::int64_t boundary, std::int64_t student_layers,
                                       std::int64_t teacher_layers);

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  struct Place {
    std::int64_t student, teacher;
    ChannelScales scales = {};
    ClosedProjection sums = {};
    at::Tensor projection = {};     // closed, or undefined
    std::size_t parameter = kNone;  // of a learned projection
  };
  double massive_;
  bool learns_, projects_;
  std::vector<Place> places_;
};

// relation_gradient of queries, keys and values of one block.
class RelationLoss {
 public:
  RelationLoss(const RelationPart& part, const ModelConfig& student, const ModelConfig& teacher);

  std::int64_t student_block() const { return student_block_; }
  std::int64_t teacher_block() const { return teacher_block_; }

  // As HiddenLoss::add, for the input [B, T, S] of student_block(); the block's own gradients are
  // added to the student.
  double add(const at::Tensor& input, const LiveTeacher& teacher, std::int64_t first, double weight,
             double scale, Student& student, at::Tensor& total) const;

  static std::int64_t teacher_block_of(const RelationPart& part, const ModelConfig& teacher);

 private:
  std::int64_t student_block_, teacher_block_;
  std::int64_t heads_[3];  // of queries, keys, values
};

// Boundaries of the student that a part compares: its own, or four evenly spaced.
std::vector<std::int64_t> boundaries_of(const HiddenPart& part, std::int64_t layers);

}  // namespace attar
