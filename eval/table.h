// The result table of lm-evaluation-harness in Markdown, readable as plain text, with columns for
// the difference to a teacher.
#pragma once

#include <string>
#include <vector>

#include "eval/runner.h"

namespace attar::eval {

// Columns Tasks, Version, Filter, n-shot, Metric, arrow, Value, +-, Stderr; with teachers (the same
// tasks in the same order) also the difference, its 95 % interval and how many documents went from
// right to wrong and from wrong to right. Cells of a column have one width.
std::string result_table(const std::vector<TaskResult>& results,
                         const std::vector<TaskResult>& teachers = {});

// Rows of cells as a Markdown table; rows[0] is the head. Column i is right-aligned if right[i].
std::string markdown_table(const std::vector<std::vector<std::string>>& rows,
                           const std::vector<bool>& right);

}  // namespace attar::eval
