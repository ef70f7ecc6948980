// A model whose weights learn: leaves in float32, run block by block, so that the gradient of one
// block is worked out, added up and forgotten before that of the block below.
//
// Shapes: B sequences of T tokens; hidden states [B, T, hidden] float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "compress/core/forward.h"
#include "compress/core/model.h"
#include "compress/train/adamw.h"
#include "compress/train/learnt_codes.h"

namespace attar {

// What of a model learns. Integer zeros of quantized weights never do, nor scales of super-blocks.
struct Learning {
  bool weights = true;  // linear layers: dense values, kept values of sparse ones, low-rank factors
  bool corrections = true;  // the low-rank part of corrected weights (LoRA); their base never
  bool norms = true;        // and biases
  bool embedding = true;    // and a head of its own
  bool scales = false;      // of quantized weights, with real minima; in units of the scale
  bool codes = false;       // of quantized linear layers without a correction
  double code_rate = 1;     // times the learning rate: of their places between codes
  std::uint64_t seed = 0;   // of where these begin
  bool from_codes = false;  // weights and embedding in codes learn as plain values
  // Linear layers of which no part learns though it could; null: none.
  std::function<bool(std::int64_t block, Role role)> leaves_out = {};
};

// What one pass of a micro-batch leaves for its gradient.
struct Activations {
  at::Tensor ids;                   // [B, T]
  std::vector<at::Tensor> inputs;   // [layers + 1]: of each block and of the final norm
  std::vector<at::Tensor> outputs;  // [layers], with their graphs; undefined: computed again
  at::Tensor normed;                // [B, T, hidden], with its graph
};

class Student {
 public:
  Student(const Model& model, const Learning& learning);

  const ModelConfig& config() const { return config_; }
  std::vector<Parameter>& parameters() { return parameters_; }
  // Makes values of codes that learn. To be called when parameters have moved.
  void follow_parameters();

  // With `recompute`, blocks are run again for their gradient instead of keeping what they made:
  // the same bits, less memory, a third more time.
  Activations forward(const at::Tensor& ids, bool recompute) const;

  // Adds to the parameters' gradients. `gradient` [B, T, hidden] is that of `normed`;
  // `add_own(i, total)` may add a further gradient of inputs[i] to `total` in place, for i = layers
  // down to 0. The activations are used up.
  void backward(Activations& activations, const at::Tensor& gradient,
                const std::function<void(std::int64_t, at::Tensor&)>& add_own = {});

  // [vocabulary, hidden]: what logits are made with, and where its gradient is added up before
  // `backward` (undefined when it does not learn).
  at::Tensor head() const;
  at::Tensor head_gradient() const;

  // A block as it is, its tensors leaves: losses on parts of a block differentiate through it.
  const Block& learning_block(std::int64_t index) const {
    return blocks_[static_cast<std::size_t>(index)];
  }
  const RopeTable& rope(std::int64_t length) const;
  // Adds gradients of leaves, in the order of `block_leaves(index)`; undefined ones are zero.
  std::vector<at::Tensor> block_leaves(std::int64_t index) const;
  void add_block_gradients(std::int64_t index, const std::vector<at::Tensor>& gradients);

  // The model as it has become, or its averaged weights where there are any; without gradients.
  // Grids are rounded to what their scheme's file holds.
  Block block(std::int64_t index, bool averaged) const;
  Weight embedding(bool averaged) const;
  at::Tensor final_norm(bool averaged) const;
  Weight head_weight(bool averaged) const;

 private:
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  // Embedding or head in codes whose grid learns.
  struct OuterGrid {
    std::vector<std::size_t> members;  // parameters; empty: it does not learn
    at::Tensor sum;  // [vocabulary, hidden]: of one micro-batch, the dense values' gradient
  };

  // A layer whose codes learn; in its block stand their values.
  struct LearntLayer {
    Role role;
    LearntCodes codes;
  };

  std::size_t learn(std::string name, at::Tensor& value, bool decays);
  void learn_grid(const std::string& name, QuantizedWeight& weight,
                  std::vector<std::size_t>& members);
  void learn(const std::string& name, Weight& weight, const Learning& learning,
             std::vector<std::size_t>& members);
  // Embedding or head: its values (`index`) or its grid.
  void learn_rows(const std::string& name, Weight& rows, const Learning& learning,
                  std::size_t& index, OuterGrid& grid);
  void add_grid_gradient(OuterGrid& grid, const Weight& weight);
  void add_gradient(std::size_t index, const at::Tensor& gradient);
  at::Tensor settled(const at::Tensor& value, bool averaged) const;
  QuantizedWeight settled(const QuantizedWeight& weight, bool averaged) const;
  LowRankWeight settled(const LowRankWeight& weight, bool averaged) const;
  Weight settled(const Weight& weight, bool averaged) const;

  ModelConfig config_;
  std::vector<Parameter> parameters_;
  std::vector<Block> blocks_;
  std::vector<std::vector<std::size_t>> members_;  // [layers]: parameters of each block
  std::vector<std::vector<LearntLayer>> learnt_;   // [layers]
  Weight embedding_, head_;
  OuterGrid embedding_grid_, head_grid_;  // of a tied head: the embedding's
  at::Tensor final_norm_, head_values_;
  std::size_t embedding_index_ = kNone, head_index_ = kNone, norm_index_ = kNone;
  mutable RopeTable rope_;
};

}  // namespace attar
