#include "eval/choice_tasks.h"

#include <algorithm>
#include <array>

#include "compress/core/errors.h"
#include "eval/few_shot.h"
#include "eval/json_lines.h"
#include "eval/python_text.h"
#include "eval/task_files.h"

namespace attar::eval {
namespace {

constexpr std::string_view kDelimiter = " ";         // between context and target
constexpr std::string_view kShotDelimiter = "\n\n";  // after each example

// A row as its task's templates render it.
struct Row {
  std::vector<std::string> contexts;  // one, or one a target
  std::vector<std::string> targets;   // without the delimiter
  std::vector<std::string> measured;  // what the length-normalized metrics count
  std::int64_t gold = 0;

  bool operator==(const Row&) const = default;

  std::string as_example() const {
    const std::string& context = contexts[contexts.size() == 1 ? 0 : gold];
    return context + std::string(kDelimiter) + targets[gold] + std::string(kShotDelimiter);
  }
};

// `text` without `prefix` and `suffix`, which must be there.
std::string between(const JsonRow& row, const char* key, std::string_view prefix,
                    std::string_view suffix) {
  const std::string text = row.text(key);
  const bool fits = text.size() >= prefix.size() + suffix.size() && text.starts_with(prefix) &&
                    text.ends_with(suffix);
  require(fits, row.where(), "key '", key, "' must begin with '", prefix, "' and end with '",
          suffix == "\nAnswer:" ? "\\nAnswer:" : suffix, "'");
  return text.substr(prefix.size(), text.size() - prefix.size() - suffix.size());
}

Row with_choices(const JsonRow& row, std::string context) {
  Row result{{std::move(context)}, row.texts("choices"), {}, 0};
  result.measured = result.targets;
  result.gold = row.index_into("gold", result.targets.size());
  return result;
}

Row read_question(const JsonRow& row) {
  const std::string question = between(row, "query", "Question: ", "\nAnswer:");
  return with_choices(row, "Question: " + question + "\nAnswer:");
}

Row read_piqa(const JsonRow& row) {
  return with_choices(row,
                      "Question: " + between(row, "query", "Goal: ", "\nAnswer:") + "\nAnswer:");
}

Row read_stem(const JsonRow& row) {
  return with_choices(row, between(row, "query", "Question: ", "\nAnswer:"));
}

Row read_hellaswag(const JsonRow& row) { return with_choices(row, row.text("query")); }

Row read_boolq(const JsonRow& row) {
  Row result = with_choices(row, between(row, "query", "", "\nAnswer:") + "\nAnswer:");
  const bool known = result.targets == std::vector<std::string>{"yes", "no"};
  require(known, row.where(), "key 'choices' must be [\"yes\", \"no\"]");
  std::reverse(result.targets.begin(), result.targets.end());
  result.measured = result.targets;
  result.gold = 1 - result.gold;
  return result;
}

// The options stand in the context, the rest of the sentence is the target of both.
Row read_winogrande(const JsonRow& row) {
  const std::string sentence = row.text("sentence");
  const std::size_t blank = sentence.find('_');
  require(blank != std::string::npos, row.where(), "key 'sentence' must have a '_'");
  const std::string start = sentence.substr(0, blank);
  const std::string rest(strip(std::string_view(sentence).substr(blank + 1)));
  Row result{{start + row.text("option1"), start + row.text("option2")}, {rest, rest}, {}, 0};
  result.measured = result.contexts;
  result.gold = row.index_into("gold", 2);
  return result;
}

Row read_lambada(const JsonRow& row) {
  return {{row.text("context")}, {row.text("continuation")}, {row.text("continuation")}, 0};
}

struct Family {
  std::string_view name;
  std::string_view version;
  std::string_view file;
  Row (*read)(const JsonRow&);
  bool normalized;  // reports acc_norm beside acc
  // The harness's file names a test split; else both split names are missing and it takes them to
  // be the same (few_shot.h).
  bool names_test_split;
};

constexpr std::array<Family, 8> kFamilies = {{
    {"arc_easy", "1.0", "arc_easy_test.jsonl", read_question, true, true},
    {"arc_challenge", "1.0", "arc_challenge_test.jsonl", read_question, true, true},
    {"hellaswag", "1.0", "hellaswag_val.jsonl", read_hellaswag, true, false},
    {"piqa", "1.0", "piqa_val.jsonl", read_piqa, true, false},
    {"openbookqa", "1.0", "openbookqa_test.jsonl", read_stem, true, true},
    {"winogrande", "1.0", "winogrande_val.jsonl", read_winogrande, false, false},
    {"boolq", "2.0", "boolq_val.jsonl", read_boolq, false, false},
    {"lambada_openai", "1.0", "lambada_openai.jsonl", read_lambada, false, true},
}};

std::vector<Row> read_rows(const Family& family, const std::filesystem::path& file) {
  std::vector<Row> rows;
  for (const JsonRow& row : read_json_lines(file)) rows.push_back(family.read(row));
  return rows;
}

std::vector<MetricInfo> metrics_of(const Family& family) {
  if (family.name == "lambada_openai") {
    return {{.name = "perplexity", .higher_is_better = false}, {.name = "acc"}};
  }
  if (family.normalized) return {{.name = "acc"}, {.name = "acc_norm"}};
  return {{.name = "acc"}};
}

Document make_document(const Row& row, std::int64_t index, const std::string& examples) {
  Document document;
  document.index = index;
  document.gold = row.gold;
  for (const std::string& context : row.contexts) document.contexts.push_back(examples + context);
  for (const std::string& target : row.targets) {
    document.targets.push_back(std::string(kDelimiter) + target);
  }
  for (const std::string& text : row.measured) {
    document.choice_characters.push_back(count_characters(text));
    document.choice_bytes.push_back(static_cast<std::int64_t>(text.size()));
  }
  return document;
}

// HellaSwag comes whole or as a sample that says its size in the name.
std::filesystem::path find_file(const Family& family, const TaskOptions& options) {
  const std::filesystem::path usual = companion_file(options, std::string(family.file));
  const std::filesystem::path sample = companion_file(options, "hellaswag_val1000.jsonl");
  std::error_code ignored;
  const bool takes_sample = family.name == "hellaswag" && !exists(usual, ignored) &&
                            is_directory(options.path, ignored) && exists(sample, ignored);
  return takes_sample ? sample : evaluated_file(options, std::string(family.file));
}

}  // namespace

std::vector<std::string> choice_task_names() {
  std::vector<std::string> names;
  for (const Family& family : kFamilies) names.emplace_back(family.name);
  return names;
}

std::optional<Task> open_choice_task(std::string_view name, const TaskOptions& options) {
  const auto* const family = std::find_if(kFamilies.begin(), kFamilies.end(),
                                          [&](const Family& f) { return f.name == name; });
  if (family == kFamilies.end()) return std::nullopt;

  Task task;
  task.name = task.alias = std::string(name);
  refuse_max_length(options, task.name);
  task.version = family->version;
  task.kind = name == "lambada_openai" ? TaskKind::kLastWord : TaskKind::kChoice;
  task.metrics = metrics_of(*family);
  task.shots = shots_of(options, 0, task.name);
  task.source = find_file(*family, options);

  const std::vector<Row> rows = read_rows(*family, task.source);
  std::vector<Row> train;
  if (task.shots > 0) {
    const auto file = companion_file(options, task.name + "_train.jsonl");
    std::error_code ignored;
    if (exists(file, ignored)) {
      task.examples = file;
      train = read_rows(*family, file);
    } else {
      require<UsageError>(!family->names_test_split, task.name, "shots=", task.shots, " needs ",
                          file.string(), ", which is not there; ask for 0 shots");
    }
  }
  const std::vector<Row>& examples = train.empty() ? rows : train;
  FewShotSampler sampler(static_cast<std::int64_t>(examples.size()), task.shots,
                         !family->names_test_split, options.shots_seed);

  task.documents_in_source = static_cast<std::int64_t>(rows.size());
  const std::int64_t count = documents_to_make(options, task.documents_in_source, task.name);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto shots = sampler.next([&](std::int64_t row) { return examples[row] == rows[i]; });
    std::string text;
    for (const std::int64_t shot : shots) text += examples[shot].as_example();
    task.documents.push_back(make_document(rows[i], i, text));
    task.documents.back().shots = shots;
  }
  drop_skipped(options, task.documents);
  return task;
}

}  // namespace attar::eval
