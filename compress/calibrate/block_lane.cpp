#include "compress/calibrate/block_lane.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>

#include "compress/calibrate/block_identity.h"

namespace attar {
namespace {

bool same_widths(const Block& a, const Block& b) {
  return std::all_of(kRoles.begin(), kRoles.end(), [&](Role role) {
    return shape_of(a[role].weight) == shape_of(b[role].weight);
  });
}

bool same_norms(const Block& a, const Block& b) {
  return std::all_of(kNorms.begin(), kNorms.end(),
                     [&](Norm norm) { return a[norm].is_same(b[norm]); });
}

}  // namespace

BlockLane::BlockLane(ModelConfig config, RopeTable rope, at::Tensor activations, std::int64_t batch)
    : config_(std::move(config)),
      rope_(std::move(rope)),
      batch_(batch),
      activations_(std::move(activations)) {}

void BlockLane::for_batches(
    const RunContext& run,
    const std::function<void(std::int64_t first, std::int64_t count)>& body) const {
  for (std::int64_t first = 0; first < sequences(); first += batch_) {
    run.check_stop();
    body(first, std::min(batch_, sequences() - first));
  }
}

void BlockLane::advance(const Block& block) { pending_.push_back(block); }

// A stop between two batches leaves a stream that can only be thrown away: the run ends with the
// exception, and a later one recomputes.
void BlockLane::catch_up(const RunContext& run) {
  while (!pending_.empty()) {
    BlockRunner& runner = prepared(pending_.front());
    const bool half_done = attended_ && same_attention(*attended_, pending_.front());
    for_batches(run, [&](std::int64_t first, std::int64_t count) {
      at::Tensor rows = activations_.narrow(0, first, count);
      if (half_done) {
        const at::Tensor h = scratch_.narrow(0, first, count);
        rows.copy_(runner.add_mlp(h, runner.gated(runner.mlp_input(h))));
      } else {
        runner.advance(rows);
      }
    });
    attended_.reset();
    pending_.pop_front();
  }
}

void BlockLane::enter(const Block& block, const RunContext& run) {
  catch_up(run);
  attended_.reset();
  entered_ = block;
  stage_ = Stage::kNothing;
  prepared(block);
}

BlockRunner& BlockLane::prepared(const Block& block) {
  if (runner_) {
    runner_->take(block);
  } else {
    runner_.emplace(config_, block, rope_);
  }
  return *runner_;
}

void BlockLane::reach(Site site, const RunContext& run) {
  const auto pass_by = [&](Site earlier) {
    for_batches(run,
                [&](std::int64_t first, std::int64_t count) { inputs(earlier, first, count); });
    visited(earlier);
  };
  if (site >= Site::kMlpInput && stage_ == Stage::kNothing) {
    if (attends(*entered_)) {
      pass_by(Site::kOutputInput);
    } else {                    // what enters is what leaves attention
      scratch_ = at::Tensor();  // gives the other one back first
      scratch_ = activations_.clone();
      stage_ = Stage::kHidden;
    }
  }
  if (site != Site::kDownInput) return;
  if (stage_ == Stage::kMixed) pass_by(Site::kMlpInput);
  // Down's statistics are mostly the widest, and nobody asks for this visit's outputs behind them.
  runner_->keep_gate_and_up();
}

at::Tensor BlockLane::inputs(Site site, std::int64_t first, std::int64_t count) {
  const at::Tensor x = activations_.narrow(0, first, count);
  switch (site) {
    case Site::kAttentionInput:
      return runner_->attention_input(x);
    case Site::kOutputInput: {
      at::Tensor mixed = runner_->attention(runner_->attention_input(x), nullptr);
      if (!scratch_.defined() || scratch_.size(2) != mixed.size(2)) {
        scratch_ = at::Tensor();  // gives the other one back first
        scratch_ = at::empty({sequences(), length(), mixed.size(2)}, at::kFloat);
      }
      scratch_.narrow(0, first, count).copy_(mixed);
      return mixed;
    }
    case Site::kMlpInput: {
      if (stage_ == Stage::kHidden) return runner_->mlp_input(scratch_.narrow(0, first, count));
      if (!hidden_.defined()) {
        hidden_ =
            scratch_.size(2) == activations_.size(2) ? scratch_ : at::empty_like(activations_);
      }
      const at::Tensor h = runner_->add_attention(x, scratch_.narrow(0, first, count));
      hidden_.narrow(0, first, count).copy_(h);
      return runner_->mlp_input(h);
    }
    case Site::kDownInput:
      return runner_->gated(runner_->mlp_input(scratch_.narrow(0, first, count)));
  }
  throw std::logic_error("BlockLane::inputs: unknown site");
}

void BlockLane::visited(Site site) {
  if (site == Site::kOutputInput) stage_ = Stage::kMixed;
  if (site == Site::kMlpInput && stage_ == Stage::kMixed) {
    scratch_ = std::move(hidden_);
    hidden_ = at::Tensor();
    stage_ = Stage::kHidden;
  }
}

void BlockLane::refresh(const Block& block) {
  if (!same_mixing(*entered_, block)) {
    stage_ = Stage::kNothing;
  } else if (!same_attention(*entered_, block) && stage_ == Stage::kHidden) {
    stage_ = Stage::kNothing;  // the attention output was overwritten
  }
  if (same_widths(*entered_, block) && same_norms(*entered_, block)) {
    for (const Site site : kSites) {
      const bool same = std::all_of(kRoles.begin(), kRoles.end(), [&](Role role) {
        return site_of(role) != site || same_tensors((*entered_)[role], block[role]);
      });
      if (!same) runner_->prepare(block, site);
    }
  } else {
    runner_.emplace(config_, block, rope_);
  }
  entered_ = block;
}

void BlockLane::leave() {
  if (stage_ == Stage::kHidden) attended_ = entered_;
  stage_ = Stage::kNothing;
  entered_.reset();
}

void BlockLane::rest() {
  leave();
  runner_.reset();
}

}  // namespace attar
