#include <algorithm>

#include "compress/core/errors.h"
#include "eval/choice_tasks.h"
#include "eval/gsm8k.h"
#include "eval/mmlu.h"
#include "eval/task.h"
#include "eval/wikitext.h"

namespace attar::eval {

std::vector<std::string> task_names() {
  std::vector<std::string> names = choice_task_names();
  names.insert(names.end(), {"mmlu", "gsm8k", "wikitext"});
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<Task> open_tasks(std::string_view name, const TaskOptions& options) {
  if (auto task = open_choice_task(name, options)) return {*std::move(task)};
  if (auto task = open_gsm8k(name, options)) return {*std::move(task)};
  if (auto task = open_wikitext(name, options)) return {*std::move(task)};
  if (auto tasks = open_mmlu(name, options); !tasks.empty()) return tasks;
  std::string known;
  for (const std::string& task : task_names()) known += (known.empty() ? "" : ", ") + task;
  throw UsageError(
      message("eval", "unknown task '", name, "'; known tasks: ", known, ", and mmlu_SUBJECT"));
}

}  // namespace attar::eval
