#include "eval/comparison.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "compress/core/errors.h"

namespace attar::eval {
namespace {

void require_same_documents(const TaskResult& teacher, const TaskResult& model) {
  bool same = teacher.task.name == model.task.name && teacher.task.shots == model.task.shots &&
              teacher.samples.size() == model.samples.size();
  for (std::size_t i = 0; same && i < model.samples.size(); ++i) {
    same = teacher.samples[i].document == model.samples[i].document;
  }
  require<UsageError>(same, "compare",
                      "teacher and model must have answered the same documents of '",
                      model.task.name, "' with the same shots; evaluate both with one recipe");
}

std::vector<double> values_of(const TaskResult& result, const std::string& key) {
  std::vector<double> values;
  for (const Sample& sample : result.samples) values.push_back(sample.values.at(key));
  return values;
}

// What a document weighs in a metric that is no plain mean.
double weight_of(const MetricInfo& metric, const Sample& sample) {
  if (metric.name == "word_perplexity") return static_cast<double>(sample.words);
  if (metric.name == "perplexity") return 1;
  return static_cast<double>(sample.bytes);
}

bool is_right_or_wrong(const MetricInfo& metric) {
  return metric.name.starts_with("acc") || metric.name == "exact_match";
}

Estimate likelihood_difference(const MetricInfo& metric, const TaskResult& teacher,
                               const TaskResult& model) {
  const auto before = values_of(teacher, metric.key());
  const auto after = values_of(model, metric.key());
  const auto transform = [&](double mean_log_likelihood) {
    return metric.name == "bits_per_byte" ? -mean_log_likelihood / std::numbers::ln2
                                          : std::exp(-mean_log_likelihood);
  };
  const auto statistic = [&](std::span<const std::int64_t> documents) {
    double sum_before = 0;
    double sum_after = 0;
    double weight = 0;
    for (const std::int64_t i : documents) {
      sum_before += before[i];
      sum_after += after[i];
      weight += weight_of(metric, model.samples[i]);
    }
    return transform(sum_after / weight) - transform(sum_before / weight);
  };
  return block_bootstrap(static_cast<std::int64_t>(after.size()), statistic);
}

MetricComparison compare_values(const std::string& key, const std::vector<double>& before,
                                const std::vector<double>& after) {
  return {key, paired_difference(before, after), count_flips(before, after)};
}

}  // namespace

std::vector<MetricComparison> compare(const TaskResult& teacher, const TaskResult& model) {
  require_same_documents(teacher, model);
  std::vector<MetricComparison> result;
  for (const MetricInfo& metric : model.task.metrics) {
    const std::string key = metric.key();
    if (is_right_or_wrong(metric)) {
      result.push_back(compare_values(key, values_of(teacher, key), values_of(model, key)));
    } else {
      result.push_back({key, likelihood_difference(metric, teacher, model), std::nullopt});
    }
  }
  return result;
}

std::vector<MetricComparison> compare_group(const std::vector<const TaskResult*>& teachers,
                                            const std::vector<const TaskResult*>& models) {
  require<UsageError>(!models.empty() && teachers.size() == models.size(), "compare",
                      "teacher and model must have the same tasks, got ", teachers.size(), " and ",
                      models.size());
  if (models.size() == 1) return compare(*teachers[0], *models[0]);
  std::vector<MetricComparison> result;
  for (const MetricInfo& metric : models[0]->task.metrics) {
    if (!is_right_or_wrong(metric)) continue;
    std::vector<double> before;
    std::vector<double> after;
    for (std::size_t i = 0; i < models.size(); ++i) {
      require_same_documents(*teachers[i], *models[i]);
      const auto teacher_values = values_of(*teachers[i], metric.key());
      const auto model_values = values_of(*models[i], metric.key());
      before.insert(before.end(), teacher_values.begin(), teacher_values.end());
      after.insert(after.end(), model_values.begin(), model_values.end());
    }
    result.push_back(compare_values(metric.key(), before, after));
  }
  return result;
}

std::vector<MetricComparison> compare_line(const ResultLine& line,
                                           const std::vector<TaskResult>& models,
                                           const std::vector<TaskResult>& teachers) {
  require<UsageError>(teachers.size() == models.size(), "compare",
                      "teacher and model must have the same tasks, got ", teachers.size(), " and ",
                      models.size());
  std::vector<const TaskResult*> befores;
  for (const TaskResult* member : line.members) {
    befores.push_back(&teachers[static_cast<std::size_t>(member - models.data())]);
  }
  return compare_group(befores, line.members);
}

}  // namespace attar::eval
