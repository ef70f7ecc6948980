// Rotations of a model that change nothing it computes, but leave no channel that stands out
// (QuaRot, Ashkboos et al. 2024, arXiv:2404.00456).
#pragma once

#include <optional>

#include "compress/core/model.h"
#include "compress/linalg/hadamard.h"

namespace attar {

struct ModelRotation {
  // R1, of the residual stream [hidden]: whatever reads it takes the norm's weights over and is
  // turned, whatever writes it is turned back.
  std::optional<linalg::RandomRotation> stream;
  // R2, of every value head [head_dim]: v and o.
  std::optional<linalg::RandomRotation> heads;
};

// Plain float32 weights come of it. `rotation.stream` and `rotation.heads` have the block's sizes.
Block rotated(Block block, const ModelRotation& rotation);

// Embedding, final norm and head; with a stream rotation the head is one of its own, because it
// takes the final norm's weights over, which the embedding does not.
OuterWeights rotated(const OuterWeights& outer, const ModelRotation& rotation);

}  // namespace attar
