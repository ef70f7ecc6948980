#include "compress/calibrate/layer_walk.h"

namespace attar {

void record_changed(BlockWork& work, Role role, Weight weight, std::string action, double error,
                    double baseline_error, std::chrono::steady_clock::time_point since) {
  LayerChange change;
  change.layer = layer_name(work.index, role);
  change.action = std::move(action);
  change.bytes_before = stored_bytes(work.block[role].weight);
  work.block[role].weight = std::move(weight);
  change.bytes_after = stored_bytes(work.block[role].weight);
  change.error = error;
  change.baseline_error = baseline_error;
  change.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
  work.context.progress(change.layer);
  work.report.changed.push_back(std::move(change));
}

void record_skipped(BlockWork& work, Role role, std::string reason) {
  work.report.skipped.push_back({layer_name(work.index, role), std::move(reason)});
}

void record_event(BlockWork& work, const std::string& layer, std::string kind, std::string text,
                  bool fallback) {
  require<NumericRefusal>(!fallback || !work.context.strict, layer, text,
                          "; the recipe is strict, so this is refused");
  work.report.events.push_back({layer, std::move(kind), std::move(text), fallback});
}

void record_sweep(BlockWork& work, const std::string& layer, std::size_t dead_columns,
                  const std::vector<std::string>& fallbacks, const std::string& kind) {
  if (dead_columns > 0) {
    record_event(
        work, layer, "dead_columns",
        std::to_string(dead_columns) +
            " input columns were never active in the calibration text, so nothing is known "
            "of what an error there costs",
        /*fallback=*/false);
  }
  for (const std::string& text : fallbacks) {
    record_event(work, layer, kind, text, /*fallback=*/true);
  }
}

void record_dropped(BlockWork& work, Site site, const linalg::GramStatistics& statistics) {
  if (statistics.dropped == 0) return;
  const std::string place =
      "model.layers." + std::to_string(work.index) + "." + std::string(to_string(site));
  require<NumericRefusal>(statistics.tokens > 0, place,
                          "every calibration token has a NaN or an infinity here; look at the "
                          "weights and norms before it");
  record_event(work, place, "nonfinite_tokens",
               std::to_string(statistics.dropped) + " of " +
                   std::to_string(statistics.dropped + statistics.tokens) +
                   " calibration tokens had a NaN or an infinity here and were left out",
               /*fallback=*/true);
}

std::int64_t widest_input(const ModelConfig& config) {
  return std::max({config.hidden, config.q_width(), config.ffn});
}

}  // namespace attar
