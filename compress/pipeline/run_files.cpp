#include "compress/pipeline/run_files.h"

#include <algorithm>

#include "compress/core/numerics.h"
#include "compress/io/hash.h"
#include "compress/pipeline/run_identity.h"
#include "compress/pipeline/run_log.h"
#include "eval/results.h"

namespace attar {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;
namespace fs = std::filesystem;

std::vector<eval::TaskResult> flatten(const std::vector<MeasuredTask>& tasks, bool after) {
  std::vector<eval::TaskResult> flat;
  for (const MeasuredTask& task : tasks) {
    const auto& results = after ? task.after : task.before;
    flat.insert(flat.end(), results.begin(), results.end());
  }
  return flat;
}

ordered_json texts_of(const std::vector<MeasuredText>& measured) {
  ordered_json texts = ordered_json::array();
  for (const MeasuredText& text : measured) {
    ordered_json entry = {{"name", text.step.name}, {"options", text.step.options()}};
    entry.update(ordered_json(to_json(text.measured)));
    texts.push_back(entry);
  }
  return texts;
}

ordered_json stages_of(const RunRecord& record) {
  ordered_json stages = ordered_json::array();
  for (const MeasuredStage& stage : record.measured.stages) {
    std::vector<eval::TaskResult> flat;
    for (const auto& results : stage.tasks) {
      flat.insert(flat.end(), results.begin(), results.end());
    }
    ordered_json entry = {{"after", stage.after}, {"texts", texts_of(stage.texts)}};
    entry["results"] = eval::results_json(flat, {.model = record.recipe.model})["results"];
    stages.push_back(std::move(entry));
  }
  return stages;
}

ordered_json exports_of(const RunRecord& record) {
  ordered_json exports = ordered_json::array();
  for (std::size_t index = 0; index < record.exports.size(); ++index) {
    const ExportReport& report = record.exports[index];
    ordered_json entry = {{"path", record.recipe.exports[index].config.path},
                          {"format", record.recipe.exports[index].config.format},
                          {"bytes", report.bytes},
                          {"max_rounding", report.max_rounding},
                          {"rounds", report.rounds()},
                          {"notes", report.notes},
                          {"verify", ordered_json(to_json(record.verified.at(index)))}};
    for (const MeasuredExport& measured : record.measured.exports) {
      if (measured.index == index) entry["texts"] = texts_of(measured.texts);
    }
    exports.push_back(std::move(entry));
  }
  return exports;
}

ordered_json events_of(const RunRecord& record, bool fallbacks) {
  ordered_json events = ordered_json::array();
  for (std::size_t pass = 0; pass < record.reports.size(); ++pass) {
    for (const PassReport& report : record.reports[pass]) {
      for (const PassEvent& event : report.events) {
        if (event.fallback != fallbacks) continue;
        events.push_back({{"pass", record.recipe.passes[pass].name},
                          {"layer", event.layer},
                          {"kind", event.kind},
                          {"text", event.text}});
      }
    }
  }
  return events;
}

ordered_json passes_of(const RunRecord& record) {
  ordered_json passes = ordered_json::array();
  for (std::size_t pass = 0; pass < record.reports.size(); ++pass) {
    std::int64_t changed = 0, skipped = 0, before = 0, after = 0;
    double error = 0;
    for (const PassReport& report : record.reports[pass]) {
      skipped += static_cast<std::int64_t>(report.skipped.size());
      for (const LayerChange& change : report.changed) {
        ++changed;
        before += change.bytes_before;
        after += change.bytes_after;
        error += change.error;
      }
    }
    passes.push_back({{"pass", record.recipe.passes[pass].name},
                      {"layers_changed", changed},
                      {"layers_skipped", skipped},
                      {"bytes_before", before},
                      {"bytes_after", after},
                      {"mean_error", changed ? error / static_cast<double>(changed) : 0}});
  }
  return passes;
}

// Everything that the run wrote, by path; the manifest itself does not exist yet, the log still
// grows, and checkpoints go.
ordered_json hashes_of(const fs::path& work) {
  std::vector<std::string> paths;
  for (const auto& entry : fs::recursive_directory_iterator(work)) {
    if (entry.is_regular_file()) paths.push_back(fs::relative(entry.path(), work).string());
  }
  std::sort(paths.begin(), paths.end());
  ordered_json hashes = ordered_json::object();
  for (const std::string& path : paths) {
    if (path == "run.jsonl" || path == "manifest.json" || path.starts_with("checkpoint/")) continue;
    hashes[path] = {{"sha256", io::sha256_file(work / path)},
                    {"bytes", fs::file_size(work / path)}};
  }
  return hashes;
}

ordered_json inputs_of(const RunRecord& record) {
  ordered_json inputs = ordered_json::array();
  inputs.push_back({{"what", "model"},
                    {"path", record.recipe.model},
                    {"sha256", record.model_sha256},
                    {"bytes", record.model_bytes}});
  const auto add = [&](const char* what, const std::string& path) {
    std::error_code ignored;
    if (!fs::is_regular_file(path, ignored)) return;
    inputs.push_back({{"what", what},
                      {"path", path},
                      {"sha256", io::sha256_file(path)},
                      {"bytes", fs::file_size(path)}});
  };
  if (!record.recipe.file.empty()) add("recipe", record.recipe.file.string());
  if (record.recipe.calibration) {
    for (const std::string& text : record.recipe.calibration->text) add("calibration", text);
  }
  for (const MeasuredText& text : record.measured.texts) add("evaluation", text.step.text.text);
  for (const MeasuredTask& task : record.measured.tasks) {
    if (!task.after.empty()) add("evaluation", task.after.front().task.source.string());
  }
  return inputs;
}

}  // namespace

ordered_json results_of(const RunRecord& record) {
  eval::ResultsInfo info;
  info.model = record.recipe.model;
  info.extra["run_id"] = record.run_id;
  const auto before = flatten(record.measured.tasks, false);
  ordered_json results = eval::results_json(flatten(record.measured.tasks, true), info, before);
  for (const MeasuredText& text : record.measured.texts) {
    ordered_json entry = {{"alias", text.step.name},
                          {"perplexity,none", text.measured.perplexity.value},
                          {"kl_mean,none", text.measured.mean.value},
                          {"top1,none", text.measured.same_top.value}};
    // The first by its step alone, the others by their file as well, the same file by a number.
    const auto taken = [&](const std::string& name) { return results["results"].contains(name); };
    const std::string step = text.step.name;
    const std::string of_file = step + "," + fs::path(text.step.text.text).filename().string();
    std::string name = taken(step) ? of_file : step;
    for (int number = 2; taken(name); ++number) name = of_file + "," + std::to_string(number);
    results["results"][name] = entry;
  }
  const bool exported = !record.exports.empty();
  ordered_json own = {{"texts", texts_of(record.measured.texts)},
                      {"measured", exported ? record.recipe.exports.front().config.path : "model"},
                      {"bits_per_weight", record.bits_per_weight},
                      {"source_bytes", record.model_bytes},
                      {"exports", exports_of(record)},
                      {"passes", passes_of(record)}};
  if (!record.measured.stages.empty()) own["stages"] = stages_of(record);
  ordered_json chat = ordered_json::array();
  for (const ChatAnswer& answer : record.measured.chat) {
    chat.push_back(
        {{"question", answer.question}, {"before", answer.before}, {"after", answer.after}});
  }
  own["chat"] = chat;
  if (record.gate) own["gate"] = {{"holds", record.gate->holds}, {"broken", record.gate->broken}};
  own["table"] = summary_table(record);
  results["attar"] = own;
  return results;
}

ordered_json manifest_of(const RunRecord& record, const fs::path& work) {
  const Numerics& numerics = set_up_numerics();
  ordered_json phases = ordered_json::object();
  for (const auto& [name, seconds] : record.phase_seconds) phases[name] = seconds;
  return {{"attar", attar_version()},
          {"sources", source_hash()},
          {"finished", utc_now()},
          {"run_id", record.run_id},
          {"weights_id", record.weights_id},
          {"seed", record.recipe.seed},
          {"recipe", record.resolved},
          {"inputs", inputs_of(record)},
          {"outputs", hashes_of(work)},
          {"numerics",
           {{"blas_mode", numerics.blas_mode},
            {"rows_independent", numerics.rows_independent},
            {"threads_independent", numerics.threads_independent},
            {"threads", threads()}}},
          {"passes", passes_of(record)},
          {"fallbacks", events_of(record, true)},
          {"events", events_of(record, false)},
          {"restored_blocks", record.restored_blocks},
          {"phase_seconds", phases},
          {"peak_rss_bytes", record.peak_rss_bytes},
          {"planned_peak_bytes", record.plan.peak_bytes}};
}

}  // namespace attar
