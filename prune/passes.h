// The pruning passes. Their mathematics stands in files of its own; here a model is walked.
#pragma once

#include <chrono>
#include <map>
#include <utility>

#include "compress/calibrate/blockwise.h"
#include "compress/linalg/sweep_hessian.h"
#include "prune/sparsity.h"

namespace attar {

struct SparseConfig {
  std::string method = "sparsegpt";
  std::string pattern = "2:4";
  double sparsity = 0.5;
  int bits = 0;
  std::int64_t group_size = 64;
  bool symmetric = false;
  std::string scale_type = "f16";
  bool search = true;
  // SmolLM2 at 2:4 by the sweep alone with 0.03: KL 1.512 in place of 1.536 with one sample of
  // calibration text, 1.507 in place of 1.471 with another (32 x 512 tokens of C4, 8 x 1024 of
  // WikiText-2).
  double damping = 0.01;
  double towards_dense = 0.5;
  bool follow = true;
  int refits = 40;
  std::vector<std::string> layers = {"*"};
  std::vector<std::string> skip;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = SparseConfig;
    visit(
        "method", &C::method, OneOf{{"sparsegpt", "wanda", "magnitude"}},
        "How weights are chosen; sparsegpt also lets the others make up for them, magnitude needs "
        "no data.");
    visit("pattern", &C::pattern, Any{},
          "'N:M': of every M neighbouring inputs N stay (2:4); 'unstructured': a share of all.");
    visit("sparsity", &C::sparsity, Range{0.0, 0.99}, "Share that goes when unstructured.");
    visit(
        "bits", &C::bits, Range{0, 8},
        "Round what stays to codes of so many bits (2 to 8), in the same sweep; 0: do not round.");
    visit("group_size", &C::group_size, Range<std::int64_t>{0, 1 << 20},
          "With bits: input columns that share one scale; 0: the whole row.");
    visit("symmetric", &C::symmetric, Any{}, "With bits: one scale and no zero point a group.");
    visit("scale_type", &C::scale_type, OneOf{{"f16", "bf16", "f32"}},
          "With bits: what a scale is rounded to.");
    visit("search", &C::search, Any{}, "With bits: search each group's range by squared error.");
    visit("damping", &C::damping, Range{0.0, 1.0},
          "sparsegpt: share of mean(diag H) added to diag H; tenfold up to five times when H is "
          "singular.");
    visit("towards_dense", &C::towards_dense, Range{0.0, 1.0},
          "sparsegpt: share of the way from a layer's weight to the one that would give the "
          "unchanged model's outputs from inputs as they have become: what is cut then (Qronos, "
          "arXiv:2505.11695). "
          "A second stream of activations, of the unchanged model, goes beside.");
    visit("follow", &C::follow, Any{},
          "towards_dense: also make up for what the residual stream has lost before the layer (o, "
          "down).");
    visit("refits", &C::refits, Range{0, 200},
          "sparsegpt without bits: steps of conjugate gradients towards the best values that the "
          "mask allows; the paper has none.");
    visit("layers", &C::layers, Any{},
          "Layers to prune: role (down), name (mlp.*) or full name, with * ? [..].");
    visit("skip", &C::skip, Any{}, "Layers to leave alone, of those.");
  }
};

// Sets weights to zero, layer by layer, true-sequential: the inputs of a layer come through the
// layers already pruned. What it leaves is a SparseWeight (the values that stay and a mask), or
// with `bits` a QuantizedWeight that holds the code of 0 where a weight was cut.
class SparsePass final : public BlockwisePass {
 public:
  using Config = SparseConfig;
  static constexpr std::string_view kName = "prune.sparse";
  static constexpr std::string_view kSummary =
      "Sets single weights to zero: SparseGPT (Frantar and Alistarh 2023, arXiv:2301.00774), Wanda "
      "(Sun et al. 2023, arXiv:2306.11695) or magnitude; 2:4, N:M or any share.";

  explicit SparsePass(SparseConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override {
    return {.calibration = config_.method != "magnitude", .dense_stream = aims()};
  }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  void see_later(std::span<const PassPlan> plans) override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run_block(BlockWork& work) const override;

 private:
  struct Decision {
    bool prunes = false;
    std::string rule;
  };
  Decision decide(std::int64_t block, Role role) const;
  std::optional<QuantScheme> scheme() const;
  bool aims() const { return config_.method == "sparsegpt" && config_.towards_dense > 0; }
  std::string action() const;
  using Clock = std::chrono::steady_clock;
  // These return the mask, [O, I]: other than 0 where a weight stays.
  at::Tensor cut_by_sparsegpt(BlockWork& work, Role role, const at::Tensor& target,
                              const linalg::SweepHessian& hessian, Clock::time_point since) const;
  at::Tensor cut_by_mask(BlockWork& work, Role role, const at::Tensor& gram) const;
  void run_sparsegpt(BlockWork& work) const;
  // cut(role) for every layer that reads the input and is to be cut; the others are recorded.
  template <class Cut>
  void each_layer(BlockWork& work, Site site, const Cut& cut) const;

  SparseConfig config_;
  SparsityPattern pattern_;
  std::map<std::pair<std::int64_t, Role>, std::string> filled_;  // by which later action
};

class PassRegistry;
void register_prune_passes(PassRegistry& registry);

}  // namespace attar
