// The three ways of asking a model about a document, one a kind of task; run_task goes through
// them.
#pragma once

#include <functional>
#include <vector>

#include "compress/runtime/language_model.h"
#include "eval/runner.h"
#include "eval/task.h"

namespace attar::eval {

using DocumentDone = std::function<void()>;

// kChoice and kLastWord: requests with the same context go to the model in one call.
std::vector<Sample> score_requests(const Task& task, LanguageModel& model,
                                   const DocumentDone& done);

// kRolling: the sum over the windows of each text.
std::vector<Sample> score_texts(const Task& task, LanguageModel& model, const DocumentDone& done);

// kGeneration: greedy text, stopped when the end of it, decoded, holds a stop string; then cut at
// the first place of each stop string, in their order, with the text of EOS as the last of them.
std::vector<Sample> generate_answers(const Task& task, LanguageModel& model,
                                     const DocumentDone& done);

}  // namespace attar::eval
