// A model against its teacher on the same documents of the same task.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "eval/groups.h"
#include "eval/runner.h"
#include "eval/statistics.h"

namespace attar::eval {

struct MetricComparison {
  std::string key;             // MetricInfo::key()
  Estimate difference;         // model - teacher, 95 %
  std::optional<Flips> flips;  // of metrics that are right or wrong a document
};

// Means are compared by paired difference, perplexities and bits by bootstrap over documents.
// Throws UsageError unless both results are of the same task, shots and documents.
std::vector<MetricComparison> compare(const TaskResult& teacher, const TaskResult& model);

// Several tasks as one: all their documents together; one task alone as compare does. The members
// of two lines that result_lines made of the same tasks.
std::vector<MetricComparison> compare_group(const std::vector<const TaskResult*>& teachers,
                                            const std::vector<const TaskResult*>& models);

// Compares a line made by result_lines(models): a task with compare, a group over all documents of
// its members together. `teachers` holds the same tasks as `models` in the same order.
std::vector<MetricComparison> compare_line(const ResultLine& line,
                                           const std::vector<TaskResult>& models,
                                           const std::vector<TaskResult>& teachers);

}  // namespace attar::eval
