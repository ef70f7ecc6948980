#include "quantize/fit_pass.h"

#include <cmath>
#include <set>
#include <sstream>

#include "compress/core/errors.h"
#include "compress/formats/block_file.h"
#include "compress/formats/gguf_blocks.h"
#include "compress/io/ggml_type.h"
#include "compress/io/json.h"
#include "compress/train/teachers.h"
#include "quantize/autoround_pass.h"
#include "quantize/embedding_pass.h"
#include "quantize/passes.h"
#include "quantize/tune.h"

namespace attar {
namespace {

using nlohmann::json;

std::vector<std::int64_t> numbers_of(const json& list, const char* key, std::int64_t low,
                                     std::int64_t high) {
  std::vector<std::int64_t> numbers;
  const bool fits = list.is_array() && !list.empty() &&
                    std::all_of(list.begin(), list.end(), [&](const json& one) {
                      return one.is_number_integer() && one >= low && one <= high;
                    });
  require<UsageError>(fits, FitPass::kName, key, " must be a list of whole numbers in [", low, ", ",
                      high, "], got ", list.dump());
  for (const json& one : list) numbers.push_back(one.get<std::int64_t>());
  return numbers;
}

std::vector<QuantScheme> types_of(const json& list) {
  std::vector<QuantScheme> formats;
  require<UsageError>(list.is_array(), FitPass::kName, "types must be a list, got ", list.dump());
  for (const json& one : list) {
    const io::GgmlTypeInfo* type =
        one.is_string() ? io::find_ggml_type(one.get<std::string>()) : nullptr;
    require<UsageError>(type != nullptr && is_block_type(type->type), FitPass::kName,
                        "types: no block type ", one.dump(),
                        "; known: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, IQ4_XS, Q2_K to Q6_K");
    formats.push_back(scheme_of(type->type));
  }
  return formats;
}

std::vector<QuantScheme> formats_of(const FitConfig& config) {
  std::vector<QuantScheme> formats = types_of(config.types);
  if (!formats.empty()) return formats;
  for (const std::int64_t bits : numbers_of(config.widths, "widths", 2, 8)) {
    for (const std::int64_t group : numbers_of(config.group_sizes, "group_sizes", 0, 1 << 20)) {
      QuantScheme format;
      format.bits = static_cast<int>(bits);
      format.group_size = group;
      format.zero_point = config.symmetric ? ZeroPoint::kSymmetric : ZeroPoint::kInteger;
      format.scale_type = config.scale_type == "f16"    ? at::kHalf
                          : config.scale_type == "bf16" ? at::kBFloat16
                                                        : at::kFloat;
      formats.push_back(format);
    }
  }
  return formats;
}

bool divides(const QuantScheme& format, std::int64_t columns) {
  const std::int64_t together = format.block_columns();
  return together == 0 || columns % together == 0;
}

// What the formats do not change: norms, biases, layers left out.
std::int64_t other_bytes(const Model& model, std::span<const FitItem> items) {
  std::set<std::string> chosen;
  for (const FitItem& item : items) chosen.insert(item.layer);
  std::int64_t bytes = 4 * model.final_norm().numel();
  const auto add = [&](const std::string& layer, const Weight& weight) {
    if (!chosen.contains(layer)) bytes += stored_bytes(weight);
  };
  add("model.embed_tokens", model.embedding());
  if (!model.config().tied_head) add("lm_head", model.head());
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    const Block block = model.block(i);
    for (const at::Tensor& norm : block.norms) bytes += norm.defined() ? 4 * norm.numel() : 0;
    for (const Role role : kRoles) {
      if (block[role].bias.defined()) bytes += 4 * block[role].bias.numel();
      add(layer_name(i, role), block[role].weight);
    }
  }
  return bytes;
}

std::string names_of(std::span<const FitItem> items, const Formats& formats) {
  std::map<std::string, int> counts;
  for (const FitItem& item : items) ++counts[describe(formats.at(item.layer))];
  std::string names;
  for (const auto& [name, count] : counts) {
    names += (names.empty() ? "" : ", ") + std::to_string(count) + " x " + name;
  }
  return names;
}

// A pass that gives these layers their formats.
template <class RoundingPass>
std::unique_ptr<Pass> rounding(const Formats& formats, const json& options) {
  auto config = read_fields<typename RoundingPass::Config>(options, FitPass::kName);
  config.chosen = formats;
  return std::make_unique<RoundingPass>(std::move(config));
}

// What an interrupted run left of a block; nothing where it is not there or damaged.
std::optional<BlockOutcome> finished_block(const FolderModelStore& kept, std::int64_t index,
                                           const std::filesystem::path& reports) {
  if (!std::filesystem::exists(reports)) return std::nullopt;
  try {
    std::optional<Block> block = kept.read(index);
    if (!block) return std::nullopt;
    return BlockOutcome{*block, io::load_json(reports).get<std::vector<PassReport>>()};
  } catch (const BadInput&) {
    return std::nullopt;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

// Holds a choice against held-out text.
class Judge {
 public:
  Judge(ModelWork& work, at::Tensor windows) : work_(work), windows_(std::move(windows)) {}

  double kl(const Formats& formats) const {
    work_.context.check_stop();
    const OpenTeacher open =
        open_teacher("original", FitPass::kName, work_.input, work_.original, nullptr);
    LiveTeacher teacher(open.model, open.map, {}, {});
    LiveTeacher rounded(rounded_to(work_.input, formats), {open.map.common, {}}, {}, {});
    return mean_divergence(teacher, rounded, windows_);
  }

 private:
  ModelWork& work_;
  at::Tensor windows_;
};

// The smallest budget, to a thousandth, whose choice reaches the KL.
std::int64_t budget_for(double kl, std::span<const FitItem> items, const Judge& judge) {
  std::int64_t low = 0, high = 0;
  for (const FitItem& item : items) {
    const auto less = [](const Choice& a, const Choice& b) { return a.bytes < b.bytes; };
    low += std::min_element(item.choices.begin(), item.choices.end(), less)->bytes;
    high += std::max_element(item.choices.begin(), item.choices.end(), less)->bytes;
  }
  const double best = judge.kl(fit_formats(items, high));
  require<DoesNotFit>(best <= kl, FitPass::kName, "KL ", best,
                      " is the least that these formats reach, asked for ", kl,
                      "; allow wider ones, or ask for less");
  while (high - low > high / 1000) {
    const std::int64_t middle = low + (high - low) / 2;
    (judge.kl(fit_formats(items, middle)) <= kl ? high : low) = middle;
  }
  return high;
}

}  // namespace

FitPass::FitPass(FitConfig config) : config_(std::move(config)), formats_(formats_of(config_)) {
  const int asked = (config_.bits > 0) + !config_.size.empty() + (config_.kl > 0);
  require<UsageError>(asked == 1, kName, "name one of bits, size and kl, got ", asked, " of them");
  if (!config_.size.empty()) read_size(config_.size, std::string(kName));
}

std::string FitPass::goal() const {
  std::ostringstream goal;
  goal << config_.method << ", format by KL: ";
  if (config_.bits > 0) goal << config_.bits << " bits in the mean";
  if (!config_.size.empty()) goal << config_.size;
  if (config_.kl > 0) goal << "KL at most " << config_.kl;
  return goal.str();
}

double FitPass::learning_tokens(double tokens, std::int64_t length) const {
  const bool learns = config_.method.ends_with("autoround");
  return learns ? AutoroundPass(AutoroundConfig{}).learning_tokens(tokens, length) : 0;
}

std::vector<PlannedLayer> FitPass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> layers = plan_layers(config_, config, kName, goal());
  double expected = config_.bits;
  if (!config_.size.empty()) {
    const std::int64_t outer = config.tied_head ? 1 : 2;
    auto weights = static_cast<double>(outer * config.vocabulary * config.hidden);
    for (const PlannedLayer& layer : layers) {
      const LinearShape shape = shape_of(config, layer.block, layer.role);
      weights += static_cast<double>(shape.out * shape.in);
    }
    expected = 8 * static_cast<double>(read_size(config_.size, std::string(kName))) / weights;
  }
  double least = INFINITY;
  for (const QuantScheme& format : formats_) {
    if (!config_.embedding || !divides(format, config.hidden)) continue;
    least = std::min(least, format.bits_per_weight(config.hidden));
  }
  for (PlannedLayer& layer : layers) {
    if (!layer.changes) continue;
    const std::int64_t columns = shape_of(config, layer.block, layer.role).in;
    double most = 0;
    for (const QuantScheme& format : formats_) {
      if (!divides(format, columns)) continue;
      layer.candidates.push_back(format);
      most = std::max(most, format.bits_per_weight(columns));
      least = std::min(least, format.bits_per_weight(columns));
    }
    require<DoesNotFit>(columns == 0 || !layer.candidates.empty(), kName,
                        layer_name(layer.block, layer.role),
                        ": no format has groups that divide its ", columns,
                        " input features; add one that has to group_sizes (0: the whole "
                        "row) or types, or skip it");
    layer.expected_bits = expected > 0 ? std::min(expected, most) : most;
  }
  // What lies between the smallest format anywhere and the smallest in each layer, and sizes, are
  // judged by the run.
  require<DoesNotFit>(
      config_.bits == 0 || least <= config_.bits || std::isinf(least) || config.widths_open, kName,
      "the smallest format takes ", least, " bits a weight, and ", config_.bits,
      " are allowed; allow more, or smaller formats (widths, group_sizes, types)");
  return layers;
}

PlannedRows FitPass::plan_rows(const ModelConfig&) const {
  if (!config_.embedding) return {};
  return {.action = goal(), .rounds = true};
}

std::int64_t FitPass::working_bytes(const ModelConfig& config) const {
  std::int64_t weights = 0;
  for (std::int64_t i = 0; i < config.layers; ++i) {
    for (const Role role : kRoles) {
      const LinearShape shape = shape_of(config, i, role);
      weights += shape.out * shape.in;
    }
  }
  if (config_.embedding) weights += (config.tied_head ? 1 : 2) * config.vocabulary * config.hidden;
  return 12 * weights;  // values, gradients, their squares
}

Formats FitPass::choose(ModelWork& work) const {
  const SplitWindows split = split_windows(work.calibration->ids, config_.held_out);
  const at::Tensor learn = split.learn.narrow(0, 0, std::min(config_.windows, split.learn.size(0)));
  Fishers fisher = fisher_diagonals(work.input, learn, config_.embedding, work.context);
  for (std::int64_t i = 0; i < work.input.config().layers; ++i) {
    for (const Role role : kRoles) {
      if (!decide(config_, i, role).changes) fisher.erase(layer_name(i, role));
    }
  }
  require<UsageError>(!fisher.empty(), kName, "no layer that it may round is plain values");
  const std::vector<FitItem> items = price_formats(work.input, fisher, formats_, work.context);
  fisher.clear();
  const Judge judge(work, split.judge);
  const std::int64_t budget =
      config_.bits > 0 ? static_cast<std::int64_t>(config_.bits * weights_of(items) / 8)
      : config_.kl > 0
          ? budget_for(config_.kl, items, judge)
          : read_size(config_.size, std::string(kName)) - other_bytes(work.input, items);
  Formats formats = fit_formats(items, budget);
  const Formats uniform = uniform_formats(items, budget);
  const double found = judge.kl(formats);
  Curve curve = cost_curve(items);
  curve.marks.push_back({bits_of(items, formats), found, "mixed, measured", true});
  std::ostringstream text;
  text.precision(4);
  text << bits_of(items, formats) << " bits a weight, " << bytes_of(items, formats)
       << " bytes: " << names_of(items, formats)
       << "; KL on held-out windows, rounded plainly: " << found << ", expected "
       << expected_kl(items, formats);
  bool worse = false;
  if (!uniform.empty()) {
    const double plain = judge.kl(uniform);
    worse = plain < found;
    text << "; " << describe(uniform.begin()->second) << " everywhere: " << plain << ", expected "
         << expected_kl(items, uniform) << ", " << bits_of(items, uniform) << " bits";
    curve.marks.push_back(
        {bits_of(items, uniform), plain, describe(uniform.begin()->second) + ", measured", true});
  }
  if (worse) text << "; that is less, so it was taken";
  work.report.events.push_back({"model", worse ? "fit_fell_back" : "fit", text.str()});
  work.report.curves.push_back(std::move(curve));
  return worse ? uniform : formats;
}

void FitPass::round(ModelWork& work, const Formats& formats) const {
  const auto has = [&](const char* part) { return config_.method.find(part) != std::string::npos; };
  std::vector<std::unique_ptr<Pass>> passes;
  if (config_.method == "rtn") {
    passes.push_back(rounding<RtnPass>(formats, {{"search", true}}));
  } else {
    if (has("awq")) passes.push_back(rounding<AwqPass>(formats, json::object()));
    passes.push_back(rounding<GptqPass>(formats, json::object()));
    if (has("autoround")) passes.push_back(std::make_unique<AutoroundPass>(AutoroundConfig{}));
  }
  plan_passes(passes, work.input.config());
  std::vector<const BlockwisePass*> blockwise;
  for (const auto& pass : passes) {
    blockwise.push_back(dynamic_cast<const BlockwisePass*>(pass.get()));
  }
  std::unique_ptr<BlockStream> stream;
  if (config_.method != "rtn") {
    const bool aims = passes.back()->needs().dense_stream;
    stream = std::make_unique<BlockStream>(work.input, *work.calibration,
                                           StreamOptions{.dense_stream = aims});
  }
  FolderModelStore kept(work.state);
  const auto reports_of = [&](std::int64_t index) {
    return work.state / ("reports-" + std::to_string(index) + ".json");
  };
  const auto take = [&](std::int64_t index, const BlockOutcome& outcome) {
    const auto append = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    for (const PassReport& report : outcome.reports) {
      append(work.report.changed, report.changed);
      append(work.report.skipped, report.skipped);
      append(work.report.events, report.events);
    }
    work.context.progress("block " + std::to_string(index));
  };
  run_blockwise(
      blockwise, work.output, stream.get(), work.context,
      [&](std::int64_t index) -> std::optional<BlockOutcome> {
        std::optional<BlockOutcome> done = finished_block(kept, index, reports_of(index));
        if (done) take(index, *done);
        return done;
      },
      [&](std::int64_t index, const BlockOutcome& outcome) {
        kept.write(index, outcome.block);
        io::write_json(reports_of(index), outcome.reports);
        take(index, outcome);
      });
  if (!config_.embedding) return;
  // What was rounded just now is what the head's states come from.
  ModelWork last{work.output,    work.output, work.original, work.calibration,
                 work.tokenizer, work.state,  work.report,   work.context};
  const json method = {{"method", config_.method == "rtn" ? "rtn" : "gptq"}};
  const auto pass = rounding<EmbeddingPass>(formats, method);
  dynamic_cast<const EmbeddingPass&>(*pass).run(last);
}

void FitPass::run(ModelWork& work) const {
  // An interrupted run goes on with the formats that it had chosen.
  const std::filesystem::path kept = work.state / "fit.json";
  Formats formats;
  if (std::filesystem::exists(kept)) {
    const json state = io::load_json(kept);
    for (const json& one : state.at("layers")) {
      formats[one.at(0).get<std::string>()] = formats_.at(one.at(1).get<std::size_t>());
    }
    work.report = state.at("report").get<PassReport>();
    work.report.events.push_back(
        {"model", "fit_resumed", "an interrupted run had chosen the formats"});
  } else {
    formats = choose(work);
    json layers = json::array();
    for (const auto& [layer, scheme] : formats) {
      const auto at = std::find(formats_.begin(), formats_.end(), scheme) - formats_.begin();
      layers.push_back({layer, at});
    }
    io::write_json(kept, {{"layers", layers}, {"report", work.report}});
  }
  round(work, formats);
}

}  // namespace attar
