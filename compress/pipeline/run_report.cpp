#include <algorithm>
#include <array>
#include <cstdio>
#include <functional>

#include "compress/pipeline/curve_svg.h"
#include "compress/pipeline/run_files.h"
#include "eval/comparison.h"
#include "eval/groups.h"
#include "eval/table.h"

namespace attar {
namespace {

using Rows = std::vector<std::vector<std::string>>;
namespace fs = std::filesystem;

std::string number(double value, const char* pattern = "%.4f") {
  std::array<char, 48> text;
  std::snprintf(text.data(), text.size(), pattern, value);
  return text.data();
}

std::string interval(const eval::Estimate& estimate, const char* pattern = "%.4f") {
  return "[" + number(estimate.low, pattern) + ", " + number(estimate.high, pattern) + "]";
}

const std::string& path_of(const RunRecord& record, std::size_t index) {
  return record.recipe.exports[index].config.path;
}

void add_sizes(const RunRecord& record, Rows& rows) {
  for (std::size_t index = 0; index < record.exports.size(); ++index) {
    rows.push_back({"size of " + path_of(record, index),
                    readable_bytes(static_cast<std::uint64_t>(record.model_bytes)),
                    readable_bytes(record.exports[index].bytes), "", ""});
  }
  rows.push_back(
      {"bits a weight in the blocks", "", number(record.bits_per_weight, "%.3f"), "", ""});
}

void add_texts(const RunRecord& record, Rows& rows) {
  std::vector<std::string> seen;
  for (const MeasuredText& text : record.measured.texts) {
    const std::string key = text.step.options().dump();
    if (std::find(seen.begin(), seen.end(), key) != seen.end()) continue;
    seen.push_back(key);
    const std::string name = fs::path(text.step.text.text).filename().string();
    const eval::DivergenceSummary& found = text.measured;
    rows.push_back({"perplexity, " + name, number(found.teacher_perplexity.value, "%.3f"),
                    number(found.perplexity.value, "%.3f"),
                    "x " + number(found.perplexity_ratio.value), interval(found.perplexity_ratio)});
    rows.push_back(
        {"KL to the original, nats", "0", number(found.mean.value), "", interval(found.mean)});
    rows.push_back({"KL, 99 %", "0", number(found.p99.value), "", interval(found.p99)});
    if (found.outside.value > 0) {
      rows.push_back({"probability of dropped tokens", "", number(found.outside.value), "",
                      interval(found.outside)});
    }
    rows.push_back(
        {"same top token", "1", number(found.same_top.value), "", interval(found.same_top)});
    for (const MeasuredExport& other : record.measured.exports) {
      const auto same = std::ranges::find_if(other.texts, [&](const MeasuredText& measured) {
        return measured.step.options() == text.step.options();
      });
      rows.push_back({"KL to the original, nats, " + path_of(record, other.index), "0",
                      number(same->measured.mean.value), "", interval(same->measured.mean)});
    }
  }
}

void add_task(const eval::ResultLine& before, const eval::ResultLine& after, Rows& rows) {
  const auto compared = eval::compare_group(before.members, after.members);
  const auto& old = before.is_group ? before.metrics : before.members.front()->metrics;
  const auto& now = after.is_group ? after.metrics : after.members.front()->metrics;
  for (std::size_t metric = 0; metric < now.size(); ++metric) {
    std::vector<std::string> row = {after.alias + " " + now[metric].info.key(),
                                    number(old.at(metric).value), number(now[metric].value), "",
                                    ""};
    for (const eval::MetricComparison& found : compared) {
      if (found.key != now[metric].info.key()) continue;
      row[3] = number(found.difference.value, "%+.4f");
      if (found.flips) {
        row[3] += " (-" + std::to_string(found.flips->lost) + " +" +
                  std::to_string(found.flips->gained) + ")";
      }
      row[4] = interval(found.difference, "%+.4f");
    }
    rows.push_back(std::move(row));
  }
}

// What a group or task of its own is called, and its first metric.
std::vector<std::pair<std::string, std::string>> headline(
    const std::vector<eval::TaskResult>& results) {
  std::vector<std::pair<std::string, std::string>> found;
  for (const eval::ResultLine& line : eval::result_lines(results)) {
    if (line.alias != line.name) continue;  // a member of a group
    const auto& metrics = line.is_group ? line.metrics : line.members.front()->metrics;
    found.emplace_back(line.alias + " " + metrics.front().info.key(),
                       number(metrics.front().value));
  }
  return found;
}

// A row a stage: KL on each text, each task; `head`: what they are called.
std::vector<std::string> stage_row(const std::string& name, const std::vector<MeasuredText>& texts,
                                   const std::vector<std::vector<eval::TaskResult>>& tasks,
                                   bool head) {
  std::vector<std::string> row = {name};
  for (const MeasuredText& text : texts) {
    row.push_back(head ? "KL, " + fs::path(text.step.text.text).filename().string()
                       : number(text.measured.mean.value));
  }
  for (const auto& results : tasks) {
    for (const auto& [key, value] : headline(results)) row.push_back(head ? key : value);
  }
  return row;
}

std::string stages_table(const RunRecord& record) {
  const Measurements& measured = record.measured;
  std::vector<std::vector<eval::TaskResult>> before, after;
  for (const MeasuredTask& task : measured.tasks) {
    before.push_back(task.before);
    after.push_back(task.after);
  }
  Rows rows = {stage_row("after", measured.texts, after, true)};
  rows.push_back(stage_row("no pass", measured.texts, before, false));
  std::fill_n(rows.back().begin() + 1, measured.texts.size(), "0");
  for (const MeasuredStage& stage : measured.stages) {
    rows.push_back(stage_row(stage.after, stage.texts, stage.tasks, false));
  }
  rows.push_back(stage_row(measured.last_stage, measured.texts, after, false));
  std::vector<bool> right(rows.front().size(), true);
  right.front() = false;
  return eval::markdown_table(rows, right);
}

std::string chat_text(const RunRecord& record) {
  std::string text;
  for (const ChatAnswer& answer : record.measured.chat) {
    text += "Question: " + answer.question + "\n\nBefore: " + answer.before +
            "\n\nAfter: " + answer.after + "\n\n";
  }
  return text;
}

nlohmann::json with_short_paths(nlohmann::json document) {
  const std::function<void(nlohmann::json&)> cut = [&](nlohmann::json& value) {
    if (value.is_array()) std::for_each(value.begin(), value.end(), cut);
    if (value.is_string()) value = fs::path(value.get<std::string>()).filename().string();
  };
  cut(document["model"]);
  if (document.contains("calibration")) {
    for (nlohmann::json& text : document["calibration"]["text"]) cut(text);
    document["calibration"].erase("batch");
    document["calibration"].erase("store");
  }
  for (const char* list : {"passes", "eval"}) {
    for (nlohmann::json& step : document[list]) {
      for (nlohmann::json& options : step) {
        for (const char* key : {"text", "path", "teacher"}) {
          if (options.contains(key)) cut(options[key]);
        }
        options.erase("cache");
      }
    }
  }
  for (nlohmann::json& step : document["export"]) {
    if (step.contains("importance")) cut(step["importance"]);
  }
  document.erase("threads");
  return document;
}

}  // namespace

std::string portable_recipe(const RunRecord& record) {
  return to_yaml(with_short_paths(record.resolved));
}

std::string summary_table(const RunRecord& record) {
  Rows rows = {{"", "before", "after", "difference", "95 % interval"}};
  add_sizes(record, rows);
  add_texts(record, rows);
  for (const MeasuredTask& task : record.measured.tasks) {
    const auto before = eval::result_lines(task.before), after = eval::result_lines(task.after);
    for (std::size_t line = 0; line < after.size(); ++line) {
      add_task(before.at(line), after[line], rows);
    }
  }
  std::string table = eval::markdown_table(rows, {false, true, true, true, true});
  const Measurements& measured = record.measured;
  const bool any = !measured.texts.empty() || !measured.tasks.empty() || !measured.chat.empty();
  if (any && !record.exports.empty()) {
    table += "\nMeasured on " + path_of(record, 0) + " as it was written.\n";
  }
  if (!record.measured.stages.empty()) table += "\n" + stages_table(record);
  return table;
}

std::string model_card(const RunRecord& record, const ExportStep& step) {
  const std::string name = fs::path(record.recipe.model).filename().string();
  std::string card = "---\nbase_model: " + nlohmann::json(name).dump() +
                     "\ntags:\n- attar\n- compressed\n---\n\n# " + name +
                     ", compressed\n\nMade by attar from `" + name +
                     "` (sha256 of its weights and configuration " + record.model_sha256 +
                     ") and stored as " + step.config.format +
                     ". The licence of the original model holds for this one too.\n\n";
  card += "## Measured\n\n" + summary_table(record) +
          "\nKL is that of the next-token distributions from the original to this model, in nats; "
          "differences are paired by document, with 95 % intervals. Numbers of lost and gained "
          "documents stand in brackets.\n";
  if (!record.measured.chat.empty()) card += "\n## One question\n\n" + chat_text(record);
  return card + "\n## Recipe\n\n```yaml\n" + portable_recipe(record) + "```\n";
}

std::string report_html(const RunRecord& record) {
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>attar run " +
      record.run_id.substr(0, 12) +
      "</title>\n<style>body{font:15px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
      "pre{background:#f4f4f4;padding:1em;overflow:auto}table{border-collapse:collapse}"
      "td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:right}"
      "td:first-child,th:first-child{text-align:left}</style></head>\n<body>\n<h1>" +
      escaped(fs::path(record.recipe.model).filename().string()) + "</h1>\n<pre>" +
      escaped(summary_table(record)) + "</pre>\n";
  if (!record.measured.chat.empty()) {
    page += "<h2>One question</h2>\n<pre>" + escaped(chat_text(record)) + "</pre>\n";
  }
  for (const auto& pass : record.reports) {
    for (const PassReport& report : pass) {
      for (const Curve& curve : report.curves)
        page += "<h2>" + escaped(curve.title) + "</h2>\n" + curve_svg(curve);
    }
  }
  page += "<h2>Recipe</h2>\n<pre>" + escaped(portable_recipe(record)) + "</pre>\n";
  page +=
      "<h2>Layers</h2>\n<table><tr><th>layer</th><th>action</th><th>error</th>"
      "<th>plain rounding</th><th>bytes</th></tr>\n";
  for (const auto& pass : record.reports) {
    for (const PassReport& report : pass) {
      for (const LayerChange& change : report.changed) {
        page += "<tr><td>" + escaped(change.layer) + "</td><td>" + escaped(change.action) +
                "</td><td>" + number(change.error, "%.5f") + "</td><td>" +
                number(change.baseline_error, "%.5f") + "</td><td>" +
                std::to_string(change.bytes_after) + "</td></tr>\n";
      }
    }
  }
  return page + "</table>\n</body></html>\n";
}

}  // namespace attar
