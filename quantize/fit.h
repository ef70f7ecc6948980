// quantize.fit apart from walking a recipe: what rounding each layer to each format costs in KL,
// and a format for every layer.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "quantize/knapsack.h"

namespace attar {

using LayerId = std::pair<std::int64_t, Role>;  // block, role

// The diagonal of the Fisher information of each layer: for tokens y drawn from the model itself,
// the mean over tokens of (d log q(y) / d w)^2, so that a change dW of independent errors costs
// about sum(fisher * dW^2) / 2 nats a token (the second-order term of the KL). Gradients are added
// up a window at a time, of which the cross terms of its tokens have mean 0.
//
//   windows  [N, T] int64
//
// [O, I] float32 for every layer that is plain values. 16 bytes a weight while it works.
std::map<LayerId, at::Tensor> fisher_diagonals(const Model& model, const at::Tensor& windows,
                                               const RunContext& context);

// One layer and what each of the formats does to it.
struct FitItem {
  LayerId layer;
  std::vector<QuantScheme> schemes;  // those of the formats whose groups divide the columns
  std::vector<Choice> choices;       // beside them: stored bytes, and KL expected in nats a token
};

// Rounds plainly, with searched ranges. Throws DoesNotFit for a layer that no format fits.
std::vector<FitItem> price_formats(const Model& model, const std::map<LayerId, at::Tensor>& fisher,
                                   std::span<const QuantScheme> formats, const RunContext& context);

using Formats = std::map<LayerId, QuantScheme>;

// The formats of least expected KL within the budget.
Formats fit_formats(std::span<const FitItem> items, std::int64_t budget);

// One format for all: of those that every item has and that fit, the one of least expected KL;
// empty when none fits.
Formats uniform_formats(std::span<const FitItem> items, std::int64_t budget);

std::int64_t bytes_of(std::span<const FitItem> items, const Formats& formats);
double expected_kl(std::span<const FitItem> items, const Formats& formats);

// The model with these layers rounded plainly, as they were priced. In memory.
Model rounded_to(const Model& model, const Formats& formats);

// "80MB", "1.5 GB", "76MiB", "80000000": bytes. Throws UsageError for anything else.
std::int64_t read_size(const std::string& text, const std::string& where);

}  // namespace attar
