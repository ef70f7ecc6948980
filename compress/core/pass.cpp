#include "compress/core/pass.h"

#include "compress/core/errors.h"

namespace attar {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LayerChange, layer, action, bytes_before, bytes_after, error,
                                   baseline_error, seconds)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SkippedLayer, layer, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PassEvent, layer, kind, text, fallback)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Curve::Point, x, y, name, filled)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Curve, title, x, y, line, marks)

void to_json(nlohmann::json& json, const PassReport& report) {
  json = {{"changed", report.changed},
          {"skipped", report.skipped},
          {"events", report.events},
          {"curves", report.curves}};
}

void from_json(const nlohmann::json& json, PassReport& report) {
  json.at("changed").get_to(report.changed);
  json.at("skipped").get_to(report.skipped);
  json.at("events").get_to(report.events);
  json.at("curves").get_to(report.curves);
}

void RunContext::check_stop() const {
  if (stop && stop->load()) {
    throw Stopped(message("run", "stopped by a signal; the same command goes on from here"));
  }
}

std::vector<PlannedLayer> plan_every_layer(const ModelConfig& config, const std::string& action) {
  std::vector<PlannedLayer> layers;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) layers.push_back({block, role, true, "all layers", action});
  }
  return layers;
}

namespace {

constexpr const char* kRows = "model.embed_tokens";  // and a head of its own

// No pass undoes, or rounds again, what an earlier one has rounded.
void check_order(std::span<const std::unique_ptr<Pass>> passes, std::span<const PassPlan> plans) {
  std::map<std::string, std::size_t> rounded_by;  // layer -> pass
  const auto refuse = [&](std::size_t pass, const std::string& layer, bool rounds) {
    const auto earlier = rounded_by.find(layer);
    if (earlier == rounded_by.end()) return;
    const std::string first = "passes." + std::to_string(earlier->second);
    throw UsageError(message("passes." + std::to_string(pass), passes[pass]->name(),
                             " would change '", layer, "' that ", first, " has rounded already; ",
                             rounds ? "leave it out of one of the two (skip:)"
                                    : "put " + first + " behind this one, or leave '" + layer +
                                          "' out of one of the two"));
  };
  for (std::size_t i = 0; i < plans.size(); ++i) {
    for (const PlannedLayer& layer : plans[i].layers) {
      if (!layer.changes || layer.adds) continue;
      const std::string name = layer_name(layer.block, layer.role);
      const bool rounds = layer.scheme || !layer.candidates.empty();
      if (!layer.plain_only) refuse(i, name, rounds);
      if (rounds) rounded_by[name] = i;
    }
    const PlannedRows& rows = plans[i].rows;
    const bool other_channels = plans[i].before.hidden != plans[i].after.hidden;
    if (rows.scheme || (rows.plain && !rows.plain_only) || other_channels) {
      refuse(i, kRows, rows.scheme.has_value());
    }
    if (rows.scheme || rows.rounds) rounded_by.emplace(kRows, i);
  }
}

}  // namespace

std::vector<PassPlan> plan_passes(std::span<const std::unique_ptr<Pass>> passes,
                                  const ModelConfig& config) {
  std::vector<PassPlan> plans(passes.size());
  ModelConfig shape = config;
  for (std::size_t i = 0; i < passes.size(); ++i) {
    plans[i].before = shape;
    shape = passes[i]->shape_after(shape);
    check(shape, "passes." + std::to_string(i) + " " + std::string(passes[i]->name()));
    plans[i].after = shape;
    plans[i].rows = passes[i]->plan_rows(plans[i].before);
  }
  for (std::size_t i = passes.size(); i-- > 0;) {
    passes[i]->see_later(std::span<const PassPlan>(plans).subspan(i + 1));
    plans[i].layers = passes[i]->plan(plans[i].before);
  }
  check_order(passes, plans);
  return plans;
}

void PassRegistry::add(Entry entry) {
  for (const Entry& known : entries_) {
    if (known.name == entry.name) {
      throw std::logic_error(message("registry", "pass '", entry.name, "' is registered twice"));
    }
  }
  entries_.push_back(std::move(entry));
}

std::unique_ptr<Pass> PassRegistry::make(const std::string& name, const nlohmann::json& options,
                                         std::string_view where) const {
  std::string known;
  for (const Entry& entry : entries_) {
    if (entry.name == name) return entry.make(options, where);
    known += (known.empty() ? "" : ", ") + entry.name;
  }
  throw UsageError(message(where, "unknown pass '", name, "'; known passes: ", known));
}

}  // namespace attar
