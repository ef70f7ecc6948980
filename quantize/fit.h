// quantize.fit apart from walking a recipe: what rounding each layer to each format costs in KL,
// and a format for every layer.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "quantize/knapsack.h"

namespace attar {

// By layer_name(), "model.embed_tokens" (also when it is the head) and "lm_head".
using Fishers = std::map<std::string, at::Tensor>;
using Formats = std::map<std::string, QuantScheme>;

// The diagonal of the Fisher information of each layer: for tokens y drawn from the model itself,
// the mean over tokens of (d log q(y) / d w)^2, so that a change dW of independent errors costs
// about sum(fisher * dW^2) / 2 nats a token (the second-order term of the KL). Gradients are added
// up a window at a time, of which the cross terms of its tokens have mean 0.
//
//   windows  [N, T] int64
//
// [O, I] float32 for every layer that is plain values; `outer`: embedding and head too. 16 bytes a
// weight while it works.
Fishers fisher_diagonals(const Model& model, const at::Tensor& windows, bool outer,
                         const RunContext& context);

// One layer and what each of the formats does to it.
struct FitItem {
  std::string layer;
  double weights = 0;                // how many
  std::vector<QuantScheme> schemes;  // those of the formats whose groups divide the columns
  std::vector<Choice> choices;       // beside them: stored bytes, and KL expected in nats a token
};

// Rounds plainly, with searched ranges. Throws DoesNotFit for a layer that no format fits.
std::vector<FitItem> price_formats(const Model& model, const Fishers& fisher,
                                   std::span<const QuantScheme> formats, const RunContext& context);

// The formats of least expected KL within the budget. Throws DoesNotFit when the smallest exceed
// it.
Formats fit_formats(std::span<const FitItem> items, std::int64_t budget);

// One format for all: of those that every item has and that fit, the one of least expected KL;
// empty when none fits.
Formats uniform_formats(std::span<const FitItem> items, std::int64_t budget);

// Least expected KL over bits a weight, and beside it each format that every item has, everywhere.
Curve cost_curve(std::span<const FitItem> items);

double weights_of(std::span<const FitItem> items);
std::int64_t bytes_of(std::span<const FitItem> items, const Formats& formats);
// Bits a weight in the mean.
double bits_of(std::span<const FitItem> items, const Formats& formats);
double expected_kl(std::span<const FitItem> items, const Formats& formats);

// The model with these layers (embedding and head among them) rounded plainly, as they were priced.
// In memory.
Model rounded_to(const Model& model, const Formats& formats);
// Embedding, final norm and head, rounded so.
OuterWeights rounded_outer(const Model& model, const Formats& formats);

// "80MB", "1.5 GB", "76MiB", "80000000": bytes. Throws UsageError for anything else.
std::int64_t read_size(const std::string& text, const std::string& where);

}  // namespace attar
