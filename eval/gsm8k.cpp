#include "eval/gsm8k.h"

#include "eval/few_shot.h"
#include "eval/json_lines.h"
#include "eval/task_files.h"

namespace attar::eval {
namespace {

struct Row {
  std::string prompt;
  std::string answer;
};

std::vector<Row> read_rows(const std::filesystem::path& file) {
  std::vector<Row> rows;
  for (const JsonRow& row : read_json_lines(file)) {
    rows.push_back({"Question: " + row.text("question") + "\nAnswer:", row.text("answer")});
  }
  return rows;
}

}  // namespace

std::optional<Task> open_gsm8k(std::string_view name, const TaskOptions& options) {
  if (name != "gsm8k") return std::nullopt;
  Task task;
  task.name = task.alias = "gsm8k";
  refuse_max_length(options, task.name);
  task.version = "3.0";
  task.kind = TaskKind::kGeneration;
  task.metrics = {{.name = "exact_match", .filter = "strict-match"},
                  {.name = "exact_match", .filter = "flexible-extract"}};
  task.shots = shots_of(options, 5, task.name);
  task.stop = {"Question:", "</s>", "<|im_end|>"};
  task.max_new_tokens = 256;
  task.source = evaluated_file(options, "gsm8k_test.jsonl");

  const std::vector<Row> rows = read_rows(task.source);
  std::vector<Row> examples;
  if (task.shots > 0) {
    task.examples = companion_file(options, "gsm8k_train.jsonl");
    examples = read_rows(task.examples);
  }
  FewShotSampler sampler(static_cast<std::int64_t>(examples.size()), task.shots,
                         /*draws_one_more=*/false, options.shots_seed);

  task.documents_in_source = static_cast<std::int64_t>(rows.size());
  const std::int64_t count = documents_to_make(options, task.documents_in_source, task.name);
  for (std::int64_t i = 0; i < count; ++i) {
    Document document;
    document.index = i;
    document.shots = sampler.next([](std::int64_t) { return false; });
    std::string context;
    for (const std::int64_t shot : document.shots) {
      context += examples[shot].prompt + ' ' + examples[shot].answer + "\n\n";
    }
    document.contexts = {context + rows[i].prompt};
    document.targets = {""};
    document.answer = rows[i].answer;
    task.documents.push_back(std::move(document));
  }
  drop_skipped(options, task.documents);
  return task;
}

}  // namespace attar::eval
