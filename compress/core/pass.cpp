#include "compress/core/pass.h"

#include "compress/core/errors.h"

namespace attar {

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(LayerChange, layer, action, bytes_before, bytes_after, error,
                                   baseline_error, seconds)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(SkippedLayer, layer, reason)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(PassEvent, layer, kind, text, fallback)

void to_json(nlohmann::json& json, const PassReport& report) {
  json = {{"changed", report.changed}, {"skipped", report.skipped}, {"events", report.events}};
}

void from_json(const nlohmann::json& json, PassReport& report) {
  json.at("changed").get_to(report.changed);
  json.at("skipped").get_to(report.skipped);
  json.at("events").get_to(report.events);
}

void RunContext::check_stop() const {
  if (stop && stop->load()) {
    throw Stopped(message("run", "stopped by a signal; the same command goes on from here"));
  }
}

std::vector<std::vector<PlannedLayer>> plan_passes(std::span<const std::unique_ptr<Pass>> passes,
                                                   const ModelConfig& config) {
  std::vector<std::vector<PlannedLayer>> plans(passes.size());
  for (std::size_t i = passes.size(); i-- > 0;) {
    passes[i]->see_later(std::span(plans).subspan(i + 1));
    plans[i] = passes[i]->plan(config);
  }
  const auto layer_count = static_cast<std::size_t>(config.layers) * kRoles.size();
  for (std::size_t layer = 0; layer < layer_count; ++layer) {
    std::optional<std::size_t> rounded_by;
    for (std::size_t i = 0; i < plans.size(); ++i) {
      const PlannedLayer& planned = plans[i].at(layer);
      if (!planned.changes) continue;
      require<UsageError>(!rounded_by, "passes." + std::to_string(i), passes[i]->name(),
                          " would change layer '", layer_name(planned.block, planned.role),
                          "' that passes.", rounded_by.value_or(0),
                          " has rounded already; leave it out of one of the two (`skip:`)");
      if (planned.scheme) rounded_by = i;
    }
  }
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
