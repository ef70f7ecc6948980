// GSM8K: word problems, five worked examples in front, greedy text, two ways to read the answer.
#pragma once

#include <optional>
#include <string_view>

#include "eval/task.h"

namespace attar::eval {

// Opens "gsm8k"; nothing for another name.
//
//   gsm8k_test.jsonl   rows {question, answer}: the evaluated split
//   gsm8k_train.jsonl  the same: examples, drawn anew for each document from one random stream
std::optional<Task> open_gsm8k(std::string_view name, const TaskOptions& options);

}  // namespace attar::eval
