// What a task is once its data file has been read: documents with the exact strings that
// lm-evaluation-harness 0.4.13 would hand to the model, and the numbers to score them by. How the
// strings are made stands in the file of each task.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace attar::eval {

enum class TaskKind {
  kChoice,      // the likeliest of several requests
  kLastWord,    // one continuation: its likelihood, and whether greedy decoding says it
  kGeneration,  // greedy text until a stop string, then an answer extracted from it
  kRolling,     // the likelihood of a whole text
};

// One question, one passage, one page.
struct Document {
  std::int64_t index = 0;             // position in the evaluated split
  std::vector<std::string> contexts;  // one shared by all requests, or one a request
  std::vector<std::string> targets;   // one a request, with its leading blank; "" where none is
  std::int64_t gold = 0;              // kChoice: index of the right request
  std::vector<std::int64_t> choice_characters;  // kChoice: what acc_norm divides by
  std::vector<std::int64_t> choice_bytes;       // kChoice: what acc_bytes divides by
  std::string answer;                           // kGeneration: the right answer in full
  std::int64_t words = 0;                       // kRolling: of the original page
  std::int64_t bytes = 0;                       // kRolling: of the original page
  std::vector<std::int64_t> shots;  // rows of the few-shot split in front of this document

  std::size_t requests() const { return targets.size(); }
  const std::string& context(std::size_t request) const {
    return contexts[contexts.size() == 1 ? 0 : request];
  }
};

// A metric of the results: key "name,filter" ("acc,none", "exact_match,strict-match").
struct MetricInfo {
  std::string name;
  std::string filter = "none";
  bool higher_is_better = true;

  std::string key() const { return name + ',' + filter; }
};

struct Task {
  std::string name;                 // "arc_easy", "mmlu_anatomy"
  std::string alias;                // what the table shows
  std::vector<std::string> groups;  // outermost first: {"mmlu", "mmlu_stem"}
  std::string version;              // of the harness's task definition: "1.0"
  TaskKind kind = TaskKind::kChoice;
  std::vector<MetricInfo> metrics;  // the harness's list, in its order
  std::int64_t shots = 0;
  std::vector<std::string> stop;           // kGeneration
  std::int64_t max_new_tokens = 0;         // kGeneration
  std::optional<std::int64_t> max_length;  // kRolling: window, if smaller than the model's
  std::filesystem::path source;            // the file with the evaluated split
  std::filesystem::path examples = {};     // that with worked examples, where it is another one
  std::int64_t documents_in_source = 0;    // before `skip` and `limit`
  std::vector<Document> documents;
};

struct TaskOptions {
  // The folder that holds the task's files under their usual names, or the file with the evaluated
  // split; files with few-shot examples are then looked for beside it.
  std::filesystem::path path = {};
  std::optional<std::int64_t> limit = {};  // evaluate the first so many documents (of each subject)
  std::int64_t skip = 0;  // but not the first so many of these; few-shot draws stay
  std::optional<std::int64_t> shots =
      {};  // examples in front of each document; the task's own default
  std::optional<std::int64_t> max_length = {};  // wikitext: length of the rolling windows in tokens
  std::uint64_t shots_seed = 1234;
};

// Names that open_tasks knows.
std::vector<std::string> task_names();

// Reads a task's data and makes its documents: one Task, or one a subject for mmlu. Throws
// UsageError for an unknown name or an option that the task does not have, BadInput or IoError for
// the data.
std::vector<Task> open_tasks(std::string_view name, const TaskOptions& options);

}  // namespace attar::eval
