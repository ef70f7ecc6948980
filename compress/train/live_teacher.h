// A teacher that is run beside the student: the whole batch block after block, so that one block at
// a time is made ready and nothing but hidden states is kept.
//
// Shapes: B sequences of T tokens, H the teacher's hidden size.
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <vector>

#include "compress/core/block_runner.h"
#include "compress/core/model.h"
#include "compress/train/vocabulary_map.h"

namespace attar {

// What the linear layers of a block give before rotation, [B, T, width].
struct Projections {
  at::Tensor query, key, value;
};

class LiveTeacher {
 public:
  // Hidden states after `boundaries[i]` blocks and projections of `blocks` are kept as well.
  LiveTeacher(const Model& model, VocabularyMap map, std::vector<std::int64_t> boundaries,
              std::vector<std::int64_t> blocks);

  // ids [B, T] of the student's vocabulary.
  void read(const at::Tensor& ids);

  // Of the batch read last.
  const at::Tensor& normed() const { return normed_; }  // [B, T, H] after the final norm
  const at::Tensor& state(std::int64_t boundary) const { return states_.at(boundary); }
  const Projections& projections(std::int64_t block) const { return projections_.at(block); }

  // [common, H]: rows in the order of the student's vocabulary.
  const at::Tensor& head() const { return head_; }
  const ModelConfig& config() const { return model_.config(); }
  std::int64_t common() const { return map_.common; }

 private:
  const BlockRunner& ready(std::int64_t index);

  Model model_;
  VocabularyMap map_;
  std::vector<std::int64_t> boundaries_, blocks_;
  RopeTable rope_;
  at::Tensor head_, final_norm_, normed_;
  std::map<std::int64_t, at::Tensor> states_;
  std::map<std::int64_t, Projections> projections_;
  std::shared_ptr<ForwardMemory> memory_ = std::make_shared<ForwardMemory>();
  std::vector<std::unique_ptr<BlockRunner>> runners_;  // all of a small teacher, else the last used
  bool keeps_;
};

}  // namespace attar
