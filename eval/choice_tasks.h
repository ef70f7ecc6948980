// ARC-easy, ARC-challenge, HellaSwag, PIQA, OpenBookQA, WinoGrande, BoolQ and LAMBADA (OpenAI
// form): every row is one question, and all but LAMBADA choose the likeliest of its continuations.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "eval/task.h"

namespace attar::eval {

std::vector<std::string> choice_task_names();

// Nothing if `name` is none of choice_task_names().
//
//   name            file in the folder             rows                                  metrics
//   arc_easy        arc_easy_test.jsonl            query, choices, gold                  acc, norm
//   arc_challenge   arc_challenge_test.jsonl       query, choices, gold                  acc, norm
//   hellaswag       hellaswag_val*.jsonl           query (preprocessed), choices, gold   acc, norm
//   piqa            piqa_val.jsonl                 query "Goal: ..", choices, gold       acc, norm
//   openbookqa      openbookqa_test.jsonl          query, choices, gold; bare stem       acc, norm
//   winogrande      winogrande_val.jsonl           sentence, option1, option2, gold      acc
//   boolq           boolq_val.jsonl                query, choices [yes, no], gold        acc
//   lambada_openai  lambada_openai.jsonl           context, continuation                 ppl, acc
//
// Shots come from NAME_train.jsonl. Without that file the tasks whose split is called validation
// take other rows of the evaluated split, as the harness does; the others are a UsageError, since
// there the harness would show a document its own answer.
std::optional<Task> open_choice_task(std::string_view name, const TaskOptions& options);

}  // namespace attar::eval
