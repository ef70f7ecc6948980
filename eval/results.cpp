#include "eval/results.h"

#include <string_view>

#include "compress/core/errors.h"
#include "eval/comparison.h"
#include "eval/groups.h"

namespace attar::eval {
namespace {

using nlohmann::ordered_json;

// "acc,none" -> "acc_stderr,none"
std::string error_key(const MetricInfo& info) { return info.name + "_stderr," + info.filter; }

ordered_json metrics_json(const ResultLine& line) {
  ordered_json json = {{"alias", line.alias}};
  for (const MetricResult& metric : line.metrics) {
    json[metric.info.key()] = metric.value;
    json[error_key(metric.info)] = metric.error ? ordered_json(*metric.error) : ordered_json("N/A");
  }
  return json;
}

std::string_view output_type(TaskKind kind) {
  switch (kind) {
    case TaskKind::kChoice:
      return "multiple_choice";
    case TaskKind::kLastWord:
      return "loglikelihood";
    case TaskKind::kGeneration:
      return "generate_until";
    case TaskKind::kRolling:
      return "loglikelihood_rolling";
  }
  return "";
}

std::string_view aggregation(const MetricInfo& info) {
  if (info.name == "perplexity") return "perplexity";
  if (info.name == "bits_per_byte") return "bits_per_byte";
  return info.name.ends_with("_perplexity") ? "weighted_perplexity" : "mean";
}

ordered_json config_json(const Task& task) {
  ordered_json json = {{"task", task.name}};
  if (!task.groups.empty()) json["tag"] = task.groups.back();
  json["dataset_path"] = "json";
  json["dataset_kwargs"] = {{"data_files", task.source.filename().string()}};
  json["output_type"] = output_type(task.kind);
  json["target_delimiter"] = " ";
  json["fewshot_delimiter"] = "\n\n";
  json["num_fewshot"] = task.shots;
  json["metric_list"] = ordered_json::array();
  std::string last;
  for (const MetricInfo& metric : task.metrics) {
    if (metric.name == last) continue;  // once, however many filters
    last = metric.name;
    json["metric_list"].push_back({{"metric", metric.name},
                                   {"aggregation", aggregation(metric)},
                                   {"higher_is_better", metric.higher_is_better}});
  }
  if (task.kind == TaskKind::kGeneration) {
    json["generation_kwargs"] = {{"until", task.stop},
                                 {"do_sample", false},
                                 {"temperature", 0.0},
                                 {"max_gen_toks", task.max_new_tokens}};
  }
  if (task.max_length) json["max_length"] = *task.max_length;
  json["repeats"] = 1;
  json["metadata"] = {{"version", std::stod(task.version)}};
  return json;
}

ordered_json comparison_json(const MetricComparison& comparison) {
  const Estimate& difference = comparison.difference;
  ordered_json json = {
      {"difference", difference.value}, {"low", difference.low}, {"high", difference.high}};
  if (comparison.flips) {
    json["lost"] = comparison.flips->lost;
    json["gained"] = comparison.flips->gained;
    json["p_value"] = comparison.flips->p_value;
  }
  return json;
}

void add_task_keys(const ResultLine& line, ordered_json& json) {
  const TaskResult& result = *line.members[0];
  const Task& task = result.task;
  json["configs"][task.name] = config_json(task);
  json["n-shot"][task.name] = task.shots;
  for (const MetricInfo& metric : task.metrics) {
    json["higher_is_better"][task.name][metric.name] = metric.higher_is_better;
  }
  json["n-samples"][task.name] = {{"original", task.documents_in_source},
                                  {"effective", result.samples.size()}};
}

}  // namespace

ordered_json results_json(const std::vector<TaskResult>& results, const ResultsInfo& info,
                          const std::vector<TaskResult>& teachers) {
  ordered_json json;
  const auto lines = result_lines(results);
  for (const char* key : {"results", "groups", "group_subtasks", "configs", "versions", "n-shot",
                          "higher_is_better", "n-samples"}) {
    json[key] = ordered_json::object();
  }
  for (const ResultLine& line : lines) {
    json["results"][line.name] = metrics_json(line);
    if (line.is_group) json["groups"][line.name] = metrics_json(line);
    json["group_subtasks"][line.name] = line.children;
    json["versions"][line.name] = std::stod(line.version);
    if (!line.is_group) add_task_keys(line, json);
    if (teachers.empty()) continue;
    for (const MetricComparison& comparison : compare_line(line, results, teachers)) {
      json["comparison"][line.name][comparison.key] = comparison_json(comparison);
    }
  }
  if (json["groups"].empty()) json.erase("groups");
  json["config"] = {{"model", "attar"}, {"model_args", info.model}};
  json["config"]["limit"] = info.limit ? ordered_json(*info.limit) : ordered_json(nullptr);
  json["config"]["bootstrap_iters"] = 100'000;
  json["config"]["fewshot_seed"] = 1234;
  json["config"].update(info.extra);
  return json;
}

std::vector<ordered_json> samples_json(const TaskResult& result) {
  std::vector<ordered_json> rows;
  for (const Sample& sample : result.samples) {
    ordered_json row = {{"doc_id", sample.document}};
    for (const auto& [key, value] : sample.values) row["values"][key] = value;
    for (const ScoredRequest& request : sample.requests) {
      row["resps"].push_back({request.log_likelihood, request.is_greedy});
    }
    if (result.task.kind == TaskKind::kChoice) row["target"] = sample.gold;
    if (result.task.kind == TaskKind::kGeneration) {
      row["resps"] = {sample.text};
      row["filtered_resps"] = sample.extracted;
    }
    if (result.task.kind == TaskKind::kRolling) {
      row["words"] = sample.words;
      row["bytes"] = sample.bytes;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace attar::eval
