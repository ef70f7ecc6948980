// The lines of a result table: tasks in their order, each group above its members.
#pragma once

#include <string>
#include <vector>

#include "eval/runner.h"

namespace attar::eval {

struct ResultLine {
  std::string name;   // "mmlu", "mmlu_stem", "mmlu_anatomy", "arc_easy"
  std::string alias;  // "mmlu", " - stem", "  - anatomy", "arc_easy"
  std::string version;
  bool is_group = false;
  std::vector<std::string> children;       // of a group: subgroups or tasks
  std::vector<const TaskResult*> members;  // of a group: all tasks below; of a task: itself
  std::vector<MetricResult> metrics;       // of a group: over all documents of its members
};

// Groups come where their first task stands; inside a group subgroups and tasks come by name. A
// group's score weighs its tasks by their documents, its error is the pooled one (nothing if a
// member has none). `results` must outlive the lines.
std::vector<ResultLine> result_lines(const std::vector<TaskResult>& results);

}  // namespace attar::eval
