// results.json in lm-evaluation-harness's schema, and every document's answers for later
// comparison.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "eval/runner.h"

namespace attar::eval {

struct ResultsInfo {
  std::string model;                       // what was evaluated: a path or a name
  std::optional<std::int64_t> limit = {};  // as asked for
  nlohmann::ordered_json extra = nlohmann::ordered_json::object();  // more keys of "config"
};

// Keys: results, groups, group_subtasks, configs, versions, n-shot, higher_is_better, n-samples,
// config; with teachers also "comparison": for every task and group and metric the difference to
// the teacher (teacher, difference, low, high and, where documents are right or wrong, lost,
// gained, p_value). Where a metric has no standard error the value is "N/A". `teachers` holds the
// same tasks in the same order, or nothing.
nlohmann::ordered_json results_json(const std::vector<TaskResult>& results, const ResultsInfo& info,
                                    const std::vector<TaskResult>& teachers = {});

// One JSON object for each document: {"doc_id", values, log-likelihoods or generated text}.
std::vector<nlohmann::ordered_json> samples_json(const TaskResult& result);

}  // namespace attar::eval
