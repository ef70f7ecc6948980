#include "eval/mmlu.h"

#include <array>
#include <map>
#include <utility>

#include "compress/core/errors.h"
#include "eval/json_lines.h"
#include "eval/python_text.h"
#include "eval/task_files.h"

namespace attar::eval {
namespace {

constexpr std::string_view kHumanities[] = {"formal_logic",
                                            "high_school_european_history",
                                            "high_school_us_history",
                                            "high_school_world_history",
                                            "international_law",
                                            "jurisprudence",
                                            "logical_fallacies",
                                            "moral_disputes",
                                            "moral_scenarios",
                                            "philosophy",
                                            "prehistory",
                                            "professional_law",
                                            "world_religions"};
constexpr std::string_view kSocialSciences[] = {"econometrics",
                                                "high_school_geography",
                                                "high_school_government_and_politics",
                                                "high_school_macroeconomics",
                                                "high_school_microeconomics",
                                                "high_school_psychology",
                                                "human_sexuality",
                                                "professional_psychology",
                                                "public_relations",
                                                "security_studies",
                                                "sociology",
                                                "us_foreign_policy"};
constexpr std::string_view kOther[] = {"business_ethics",
                                       "clinical_knowledge",
                                       "college_medicine",
                                       "global_facts",
                                       "human_aging",
                                       "management",
                                       "marketing",
                                       "medical_genetics",
                                       "miscellaneous",
                                       "nutrition",
                                       "professional_accounting",
                                       "professional_medicine",
                                       "virology"};
constexpr std::string_view kStem[] = {"abstract_algebra",
                                      "anatomy",
                                      "astronomy",
                                      "college_biology",
                                      "college_chemistry",
                                      "college_computer_science",
                                      "college_mathematics",
                                      "college_physics",
                                      "computer_security",
                                      "conceptual_physics",
                                      "electrical_engineering",
                                      "elementary_mathematics",
                                      "high_school_biology",
                                      "high_school_chemistry",
                                      "high_school_computer_science",
                                      "high_school_mathematics",
                                      "high_school_physics",
                                      "high_school_statistics",
                                      "machine_learning"};

constexpr std::string_view kFile = "mmlu_test.jsonl";
constexpr std::string_view kExamplesFile = "mmlu_dev.jsonl";

struct Row {
  std::string question;  // with the lettered choices, up to "Answer:"
  std::int64_t answer = 0;
  std::int64_t choices = 0;
};

std::string letter(std::int64_t index) { return {static_cast<char>('A' + index)}; }

using Subjects = std::map<std::string, std::vector<Row>>;  // alphabetical

Subjects read_rows(const std::filesystem::path& file) {
  Subjects subjects;
  for (const JsonRow& row : read_json_lines(file)) {
    const std::vector<std::string> choices = row.texts("choices");
    require(choices.size() >= 2 && choices.size() <= 26, row.where(),
            "key 'choices' must hold 2 to 26 strings, got ", choices.size());
    Row result;
    result.question = strip(row.text("question"));
    for (std::size_t i = 0; i < choices.size(); ++i) {
      result.question += '\n' + letter(static_cast<std::int64_t>(i)) + ". " + choices[i];
    }
    result.question += "\nAnswer:";
    result.answer = row.index_into("answer", choices.size());
    result.choices = static_cast<std::int64_t>(choices.size());
    subjects[row.text("subject")].push_back(std::move(result));
  }
  return subjects;
}

// What stands before every question of the subject.
std::string introduction(const std::string& subject, const std::vector<Row>& examples,
                         std::int64_t shots) {
  std::string text = "The following are multiple choice questions (with answers) about " +
                     replace_all(subject, "_", " ") + ".\n\n";
  for (std::int64_t i = 0; i < shots; ++i) {
    text += examples[i].question + ' ' + letter(examples[i].answer) + "\n\n";
  }
  return text;
}

Document make_document(const Row& row, std::int64_t index, const std::string& before) {
  Document document;
  document.index = index;
  document.gold = row.answer;
  document.contexts = {before + row.question};
  for (std::int64_t i = 0; i < row.choices; ++i) {
    document.targets.push_back(' ' + letter(i));
    document.choice_characters.push_back(1);
    document.choice_bytes.push_back(1);
  }
  return document;
}

Task make_task(const std::string& subject, const std::vector<Row>& rows,
               const std::vector<Row>& examples, std::int64_t shots, const TaskOptions& options) {
  Task task;
  task.name = "mmlu_" + subject;
  task.alias = subject;
  task.groups = {"mmlu"};
  if (const auto category = mmlu_category(subject); !category.empty()) {
    task.groups.emplace_back(category);
  }
  task.version = "1.0";
  task.kind = TaskKind::kChoice;
  task.metrics = {{.name = "acc"}};
  task.shots = shots;
  task.documents_in_source = static_cast<std::int64_t>(rows.size());
  require<UsageError>(shots <= static_cast<std::int64_t>(examples.size()), task.name,
                      "shots=", shots, ", but ", kExamplesFile, " holds ", examples.size(),
                      " rows of this subject; ask for fewer");
  const std::string before = introduction(subject, examples, shots);
  const std::int64_t count = documents_to_make(options, task.documents_in_source, task.name);
  for (std::int64_t i = 0; i < count; ++i) {
    task.documents.push_back(make_document(rows[i], i, before));
    for (std::int64_t shot = 0; shot < shots; ++shot) task.documents.back().shots.push_back(shot);
  }
  drop_skipped(options, task.documents);
  return task;
}

}  // namespace

std::string_view mmlu_category(std::string_view subject) {
  const auto holds = [&](const auto& subjects) {
    for (const std::string_view known : subjects) {
      if (known == subject) return true;
    }
    return false;
  };
  if (holds(kStem)) return "mmlu_stem";
  if (holds(kOther)) return "mmlu_other";
  if (holds(kSocialSciences)) return "mmlu_social_sciences";
  if (holds(kHumanities)) return "mmlu_humanities";
  return "";
}

std::vector<Task> open_mmlu(std::string_view name, const TaskOptions& options) {
  if (name != "mmlu" && !name.starts_with("mmlu_")) return {};
  refuse_max_length(options, std::string(name));
  const std::string wanted(name == "mmlu" ? "" : name.substr(5));
  const std::filesystem::path file = evaluated_file(options, std::string(kFile));
  const std::int64_t shots = shots_of(options, 5, std::string(name));
  const Subjects subjects = read_rows(file);
  Subjects examples;
  const std::filesystem::path beside = companion_file(options, std::string(kExamplesFile));
  if (shots > 0) examples = read_rows(beside);

  std::vector<Task> tasks;
  for (const auto& [subject, rows] : subjects) {
    if (!wanted.empty() && subject != wanted) continue;
    tasks.push_back(make_task(subject, rows, examples[subject], shots, options));
    tasks.back().source = file;
    if (shots > 0) tasks.back().examples = beside;
  }
  require<UsageError>(!tasks.empty(), std::string(name), file.string(), " holds no subject '",
                      wanted, "'");
  return tasks;
}

}  // namespace attar::eval
