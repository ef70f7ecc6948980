// Runs a task on a model and keeps what it said about every document.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "compress/runtime/language_model.h"
#include "eval/task.h"

namespace attar::eval {

struct ScoredRequest {
  double log_likelihood = 0;  // nats, of the target
  bool is_greedy = false;
  std::int64_t context_tokens = 0;
  std::int64_t target_tokens = 0;
};

// One rolling window.
struct ScoredWindow {
  std::int64_t input_tokens = 0;
  std::int64_t scored_tokens = 0;
};

// One document's answers.
struct Sample {
  std::int64_t document = 0;  // Document::index
  // By MetricInfo::key(): what this document adds to the metric. 0 or 1 for acc and exact_match;
  // the log-likelihood for perplexities. A choice task has "acc_norm,none" and "acc_bytes,none"
  // here whether it reports them or not.
  std::map<std::string, double> values;

  std::vector<ScoredRequest> requests;  // kChoice, kLastWord
  std::int64_t gold = 0;                // kChoice
  std::int64_t chosen = 0;              // kChoice: the first index of the best, by log-likelihood,
  std::int64_t chosen_norm = 0;         //   by log-likelihood a character,
  std::int64_t chosen_bytes = 0;        //   by log-likelihood a byte

  std::vector<TokenId> ids;                      // kGeneration: all generated tokens
  std::string raw_text;                          // kGeneration: decoded without special tokens
  std::string text;                              // kGeneration: cut at the stop strings
  std::map<std::string, std::string> extracted;  // kGeneration: by filter

  std::vector<ScoredWindow> windows;  // kRolling
  std::int64_t words = 0;             // kRolling
  std::int64_t bytes = 0;             // kRolling
};

struct MetricResult {
  MetricInfo info;
  double value = 0;
  std::optional<double> error;  // standard error; nothing where the harness says "N/A"
};

struct TaskResult {
  Task task;  // without its documents
  std::vector<MetricResult> metrics;
  std::vector<Sample> samples;  // in the order of the documents
};

struct Progress {
  std::string task;
  std::int64_t done = 0;  // documents
  std::int64_t total = 0;
};

struct RunOptions {
  // Called after each document; may throw to stop the run.
  std::function<void(const Progress&)> progress = {};
  std::int64_t bootstrap_draws = 100'000;  // for the error of lambada's perplexity
};

// Documents are asked in an order in which shared beginnings follow one another; what comes out
// does not depend on it. Throws NumericRefusal if a log-likelihood is not finite, BadInput if a
// document leaves nothing to score, DoesNotFit if one cannot fit into the model.
TaskResult run_task(const Task& task, LanguageModel& model, const RunOptions& options = {});

// The metrics of the task from samples at hand.
std::vector<MetricResult> aggregate(const Task& task, const std::vector<Sample>& samples,
                                    std::int64_t bootstrap_draws = 100'000);

}  // namespace attar::eval
