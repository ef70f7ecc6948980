#include "quantize/fit.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros_like.h>

#include <cmath>
#include <cstdlib>
#include <numeric>

#include "compress/core/errors.h"
#include "compress/core/grid.h"
#include "compress/train/response_gradient.h"
#include "compress/train/sparse_targets.h"
#include "compress/train/student.h"
#include "quantize/rtn.h"
#include "quantize/scheme_rules.h"

namespace attar {
namespace {

const std::string kEmbedding = "model.embed_tokens", kHead = "lm_head";

const Choice& choice_of(const FitItem& item, const Formats& formats) {
  const QuantScheme& scheme = formats.at(item.layer);
  const auto found = std::find(item.schemes.begin(), item.schemes.end(), scheme);
  if (found == item.schemes.end()) throw std::logic_error("fit: a format that was not priced");
  return item.choices[static_cast<std::size_t>(found - item.schemes.begin())];
}

// Of all elements, in one order whatever the threads.
double total(const at::Tensor& values) {
  const at::Tensor rows = values.sum(1, false, at::kDouble);
  const auto* row = rows.const_data_ptr<double>();
  return std::accumulate(row, row + rows.numel(), 0.0);
}

// Each format that every item has, everywhere.
std::vector<Formats> single_formats(std::span<const FitItem> items) {
  std::vector<Formats> single;
  for (const QuantScheme& format : items.front().schemes) {
    const bool everywhere = std::all_of(items.begin(), items.end(), [&](const FitItem& item) {
      return std::find(item.schemes.begin(), item.schemes.end(), format) != item.schemes.end();
    });
    if (!everywhere) continue;
    Formats& formats = single.emplace_back();
    for (const FitItem& item : items) formats[item.layer] = format;
  }
  return single;
}

}  // namespace

Fishers fisher_diagonals(const Model& model, const at::Tensor& windows, bool outer,
                         const RunContext& context) {
  Student student(model,
                  {.corrections = false, .norms = false, .embedding = outer, .from_codes = true});
  std::vector<Parameter>& parameters = student.parameters();
  std::vector<at::Tensor> squares;
  for (Parameter& p : parameters) {  // without moments: nothing is updated
    p.gradient = at::zeros_like(p.value.detach());
    squares.push_back(at::zeros_like(p.gradient));
  }
  const ResponseTerm term;  // -log q[target]
  const std::int64_t length = windows.size(1);
  for (std::int64_t w = 0; w < windows.size(0); ++w) {
    context.check_stop();
    context.progress("sensitivity " + std::to_string(w + 1) + " of " +
                     std::to_string(windows.size(0)));
    Activations activations = student.forward(windows.narrow(0, w, 1), /*recompute=*/true);
    const at::Tensor hidden = activations.normed.detach();
    ResponseTargets targets;
    targets.tokens = drawn_tokens(hidden.flatten(0, 1), student.head(), context.seed, w * length);
    const ResponseGradient found = response_gradient(
        hidden.flatten(0, 1), student.head(), student.head_gradient(), targets, {&term, 1}, 1.0);
    student.backward(activations, found.hidden.view(hidden.sizes()));
    const at::NoGradGuard none;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      squares[i].addcmul_(parameters[i].gradient, parameters[i].gradient);
      parameters[i].gradient.zero_();
    }
  }
  const double tokens = static_cast<double>(windows.numel());
  Fishers fisher;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    std::string layer = parameters[i].name;
    if (layer.ends_with(".weight")) layer.resize(layer.size() - std::string(".weight").size());
    fisher[std::move(layer)] = squares[i].div_(tokens);
  }
  return fisher;
}

std::vector<FitItem> price_formats(const Model& model, const Fishers& fisher,
                                   std::span<const QuantScheme> formats,
                                   const RunContext& context) {
  std::vector<FitItem> items;
  const auto price = [&](const std::string& layer, const Weight& weight) {
    const auto found = fisher.find(layer);
    if (found == fisher.end()) return;
    context.check_stop();
    context.progress("price " + layer);
    const at::Tensor plain = dense(weight);
    FitItem item{layer, static_cast<double>(plain.numel()), {}, {}};
    for (const QuantScheme& format : formats) {
      const std::int64_t together = format.block_columns();
      if (together > 0 && plain.size(1) % together != 0) continue;
      const QuantizedWeight rounded = rtn_quantize(plain, format, {.search = true}).weight;
      const at::Tensor change = dense(Weight(rounded)) - plain;
      const double cost = total(change.square_() * found->second) / 2;
      require<NumericRefusal>(std::isfinite(cost), layer,
                              "its gradients on the calibration text are not finite; the model, or "
                              "its head, holds a NaN or overflows");
      item.schemes.push_back(format);
      item.choices.push_back({stored_bytes(rounded), cost});
    }
    require<DoesNotFit>(!item.schemes.empty(), layer, "no format has groups that divide its ",
                        plain.size(1),
                        " input features; add one that has to group_sizes (0: the whole row) or "
                        "types");
    items.push_back(std::move(item));
  };
  price(kEmbedding, model.embedding());
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    const Block block = model.block(i);
    for (const Role role : roles_of(block)) price(layer_name(i, role), block[role].weight);
    model.done_with_block(i);
  }
  if (!model.config().tied_head) price(kHead, model.head());
  return items;
}

Formats fit_formats(std::span<const FitItem> items, std::int64_t budget) {
  std::vector<std::vector<Choice>> choices;
  std::int64_t least = 0;
  for (const FitItem& item : items) {
    choices.push_back(item.choices);
    least += std::min_element(item.choices.begin(), item.choices.end(),
                              [](const Choice& a, const Choice& b) { return a.bytes < b.bytes; })
                 ->bytes;
  }
  require<DoesNotFit>(least <= budget, "quantize.fit", "the smallest formats take ", least,
                      " bytes, and ", budget, " are allowed; allow more, or smaller formats");
  const Selection found = solve_knapsack(choices, budget);
  Formats formats;
  for (std::size_t i = 0; i < items.size(); ++i) {
    formats[items[i].layer] = items[i].schemes[found.chosen[i]];
  }
  return formats;
}

Formats uniform_formats(std::span<const FitItem> items, std::int64_t budget) {
  Formats best;
  double least = INFINITY;
  for (Formats& formats : single_formats(items)) {
    if (bytes_of(items, formats) > budget) continue;
    if (const double cost = expected_kl(items, formats); cost < least) {
      least = cost;
      best = std::move(formats);
    }
  }
  return best;
}

Curve cost_curve(std::span<const FitItem> items) {
  constexpr int kPoints = 13;
  std::int64_t low = 0, high = 0;
  for (const FitItem& item : items) {
    const auto less = [](const Choice& a, const Choice& b) { return a.bytes < b.bytes; };
    const auto [least, most] = std::minmax_element(item.choices.begin(), item.choices.end(), less);
    low += least->bytes;
    high += most->bytes;
  }
  Curve curve{"Expected KL by size", "bits a weight", "nats a token", {}, {}};
  for (int i = 0; i < kPoints; ++i) {
    const Formats best = fit_formats(items, low + (high - low) * i / (kPoints - 1));
    curve.line.push_back({bits_of(items, best), expected_kl(items, best)});
  }
  for (const Formats& formats : single_formats(items)) {
    curve.marks.push_back(
        {bits_of(items, formats), expected_kl(items, formats), describe(formats.begin()->second)});
  }
  return curve;
}

double weights_of(std::span<const FitItem> items) {
  double weights = 0;
  for (const FitItem& item : items) weights += item.weights;
  return weights;
}

double bits_of(std::span<const FitItem> items, const Formats& formats) {
  return 8 * static_cast<double>(bytes_of(items, formats)) / weights_of(items);
}

std::int64_t bytes_of(std::span<const FitItem> items, const Formats& formats) {
  std::int64_t bytes = 0;
  for (const FitItem& item : items) bytes += choice_of(item, formats).bytes;
  return bytes;
}

double expected_kl(std::span<const FitItem> items, const Formats& formats) {
  double cost = 0;
  for (const FitItem& item : items) cost += choice_of(item, formats).cost;
  return cost;
}

OuterWeights rounded_outer(const Model& model, const Formats& formats) {
  const auto rounded = [&](const std::string& layer, Weight weight) -> Weight {
    const auto found = formats.find(layer);
    if (found == formats.end()) return weight;
    return rtn_quantize(dense(weight), found->second, {.search = true}).weight;
  };
  OuterWeights outer{rounded(kEmbedding, model.embedding()), model.final_norm(), std::nullopt};
  if (!model.config().tied_head) outer.head = rounded(kHead, model.head());
  return outer;
}

Model rounded_to(const Model& model, const Formats& formats) {
  Model rounded = model.successor(std::make_shared<MemoryModelStore>());
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    Block block = model.block(i);
    for (const Role role : roles_of(block)) {
      const auto found = formats.find(layer_name(i, role));
      if (found == formats.end()) continue;
      block[role].weight =
          rtn_quantize(dense(block[role].weight), found->second, {.search = true}).weight;
    }
    rounded.put_block(i, block);
    model.done_with_block(i);
  }
  if (formats.contains(kEmbedding) || formats.contains(kHead)) {
    rounded.put_outer(rounded_outer(model, formats));
  }
  return rounded;
}

std::int64_t read_size(const std::string& text, const std::string& where) {
  const char* begin = text.c_str();
  char* end = nullptr;
  const double number = std::strtod(begin, &end);
  std::string unit(end);
  std::erase(unit, ' ');
  const std::map<std::string, double> units = {
      {"", 1},     {"B", 1},        {"kB", 1e3},        {"KB", 1e3},          {"MB", 1e6},
      {"GB", 1e9}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
  const auto known = units.find(unit);
  require<UsageError>(
      end != begin && std::isfinite(number) && number > 0 && number < 1e15 && known != units.end(),
      where, "size must be a number of bytes such as 80MB or 76MiB, got '", text, "'");
  return static_cast<std::int64_t>(number * known->second);
}

}  // namespace attar
