#include "eval/runner.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "compress/core/errors.h"
#include "eval/answer_filters.h"
#include "eval/metrics.h"
#include "eval/scoring.h"

namespace attar::eval {
namespace {

// The first index of the largest log-likelihood, each divided by its length.
std::int64_t best(const std::vector<ScoredRequest>& requests,
                  const std::vector<std::int64_t>& lengths) {
  const auto score = [&](std::size_t i) {
    return requests[i].log_likelihood / static_cast<double>(lengths[i]);
  };
  std::size_t chosen = 0;
  for (std::size_t i = 1; i < requests.size(); ++i) {
    if (score(i) > score(chosen)) chosen = i;
  }
  return static_cast<std::int64_t>(chosen);
}

void judge_choice(const Document& document, Sample& sample) {
  const std::vector<std::int64_t> ones(document.requests(), 1);
  sample.chosen = best(sample.requests, ones);
  sample.chosen_norm = best(sample.requests, document.choice_characters);
  sample.chosen_bytes = best(sample.requests, document.choice_bytes);
  sample.values["acc,none"] = sample.chosen == document.gold;
  sample.values["acc_norm,none"] = sample.chosen_norm == document.gold;
  sample.values["acc_bytes,none"] = sample.chosen_bytes == document.gold;
}

void judge_last_word(Sample& sample) {
  sample.values["acc,none"] = sample.requests[0].is_greedy;
  sample.values["perplexity,none"] = sample.requests[0].log_likelihood;
}

void judge_generation(const Document& document, Sample& sample) {
  sample.extracted["strict-match"] = extract_strict(sample.text);
  sample.extracted["flexible-extract"] = extract_flexible(sample.text);
  for (const auto& [filter, answer] : sample.extracted) {
    sample.values["exact_match," + filter] = exact_match(answer, document.answer);
  }
}

double sum_over(const std::vector<Sample>& samples, std::int64_t Sample::*count) {
  std::int64_t sum = 0;
  for (const Sample& sample : samples) sum += sample.*count;
  return static_cast<double>(sum);
}

MetricResult aggregate_one(const MetricInfo& info, const std::vector<Sample>& samples,
                           std::int64_t bootstrap_draws) {
  std::vector<double> values;
  for (const Sample& sample : samples) values.push_back(sample.values.at(info.key()));
  if (info.name == "perplexity") {
    return {info, perplexity(values), bootstrap_error(values, perplexity, bootstrap_draws)};
  }
  const double sum = mean(values) * static_cast<double>(values.size());
  if (info.name == "word_perplexity") {
    return {info, std::exp(-sum / sum_over(samples, &Sample::words)), std::nullopt};
  }
  if (info.name == "byte_perplexity") {
    return {info, std::exp(-sum / sum_over(samples, &Sample::bytes)), std::nullopt};
  }
  if (info.name == "bits_per_byte") {
    return {info, -sum / sum_over(samples, &Sample::bytes) / std::numbers::ln2, std::nullopt};
  }
  return {info, mean(values), mean_error(values)};
}

}  // namespace

std::vector<MetricResult> aggregate(const Task& task, const std::vector<Sample>& samples,
                                    std::int64_t bootstrap_draws) {
  std::vector<MetricResult> results;
  for (const MetricInfo& metric : task.metrics) {
    results.push_back(aggregate_one(metric, samples, bootstrap_draws));
  }
  return results;
}

TaskResult run_task(const Task& task, LanguageModel& model, const RunOptions& options) {
  require<UsageError>(!task.documents.empty(), task.name, "the task has no documents");
  Progress progress{task.name, 0, static_cast<std::int64_t>(task.documents.size())};
  const DocumentDone done = [&] {
    ++progress.done;
    if (options.progress) options.progress(progress);
  };
  TaskResult result;
  switch (task.kind) {
    case TaskKind::kChoice:
    case TaskKind::kLastWord:
      result.samples = score_requests(task, model, done);
      break;
    case TaskKind::kRolling:
      result.samples = score_texts(task, model, done);
      break;
    case TaskKind::kGeneration:
      result.samples = generate_answers(task, model, done);
      break;
  }
  for (std::size_t i = 0; i < result.samples.size(); ++i) {
    const Document& document = task.documents[i];
    if (task.kind == TaskKind::kChoice) judge_choice(document, result.samples[i]);
    if (task.kind == TaskKind::kLastWord) judge_last_word(result.samples[i]);
    if (task.kind == TaskKind::kGeneration) judge_generation(document, result.samples[i]);
  }
  result.metrics = aggregate(task, result.samples, options.bootstrap_draws);
  result.task = task;
  result.task.documents.clear();
  return result;
}

}  // namespace attar::eval
