// MMLU: four choices by letter, five examples of the same subject in front, one task a subject.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace attar::eval {

// The group of the 57 subjects ("mmlu_stem", ...), or "" for a subject that is none of them.
std::string_view mmlu_category(std::string_view subject);

// Opens "mmlu" (every subject of the file, in alphabetical order) or "mmlu_SUBJECT"; empty if
// `name` is neither.
//
//   mmlu_test.jsonl  rows {subject, question, choices, answer}: the evaluated split
//   mmlu_dev.jsonl   the same: the first `shots` rows of a subject are its examples
//
// Any subject may stand in the files; those that MMLU has not belong to the group mmlu alone.
// options.limit and skip hold for each subject.
std::vector<Task> open_mmlu(std::string_view name, const TaskOptions& options);

}  // namespace attar::eval
