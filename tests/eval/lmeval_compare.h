// Document by document: what attar says against what lm-evaluation-harness said.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "compress/tokenize/tokenizer.h"
#include "eval/runner.h"

namespace attar::eval::testing {

struct Agreement {
  std::string task;
  int documents = 0;
  int requests = 0;
  double largest_difference = 0;          // of a log-likelihood, nats
  double largest_share_of_tolerance = 0;  // that difference over 1e-4 + 2e-5 x target tokens
  std::vector<std::string> differences;   // "arc_easy document 3: pred is 1, expected 0"
};

// All lines of ../shared/lmeval/NAME.dev.jsonl.gz.
std::vector<nlohmann::json> read_documents(const std::string& name);

// The task's documents that these lines are about: right skip, limit and window.
std::vector<Task> open_for(const std::string& name, const std::vector<nlohmann::json>& answers);

// Prompt strings, token ids and counts, few-shot choices and stated lengths; needs no model.
Agreement compare_inputs(const std::string& name, const std::vector<Task>& tasks,
                         const std::vector<nlohmann::json>& answers, const Tokenizer& tokenizer);

// Log-likelihoods within their tolerance; greediness, choices, verdicts, generated ids and texts,
// extractions and windows equal.
Agreement compare_answers(const std::string& name, const std::vector<TaskResult>& results,
                          const std::vector<nlohmann::json>& answers);

}  // namespace attar::eval::testing
