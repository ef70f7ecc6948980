#include "tests/eval/lmeval_compare.h"

#include <zlib.h>

#include <cmath>
#include <map>

#include "compress/core/errors.h"
#include "compress/io/hash.h"
#include "eval/encoding.h"
#include "tests/eval/lmeval_answers.h"

namespace attar::eval::testing {
namespace {

using nlohmann::json;

std::string unpacked(const std::filesystem::path& path) {
  gzFile file = gzopen(path.c_str(), "rb");
  require<IoError>(file != nullptr, path.string(), "cannot open");
  std::string text;
  char buffer[1 << 16];
  for (int count; (count = gzread(file, buffer, sizeof buffer)) > 0;) {
    text.append(buffer, static_cast<std::size_t>(count));
  }
  gzclose(file);
  return text;
}

// Collects what differs from one document.
class Check {
 public:
  Check(Agreement& agreement, const json& answer)
      : agreement_(agreement),
        where_(answer.at("task").get<std::string>() + " document " +
               std::to_string(answer.at("doc_index").get<int>())) {}

  template <class T>
  void equal(const std::string& what, const T& got, const json& expected) {
    const json mine = got;
    if (mine != expected) add(what + " is " + mine.dump() + ", expected " + expected.dump());
  }

  void near(const std::string& what, double got, double expected, std::int64_t tokens) {
    const double difference = std::abs(got - expected);
    const double share = difference / (1e-4 + 2e-5 * static_cast<double>(tokens));
    agreement_.largest_difference = std::max(agreement_.largest_difference, difference);
    agreement_.largest_share_of_tolerance = std::max(agreement_.largest_share_of_tolerance, share);
    if (!(share <= 1)) {
      add(what + " is " + std::to_string(got) + ", expected " + std::to_string(expected));
    }
  }

 private:
  void add(const std::string& text) { agreement_.differences.push_back(where_ + ": " + text); }

  Agreement& agreement_;
  std::string where_;
};

std::string ids_digest(const std::vector<TokenId>& first, const std::vector<TokenId>& second) {
  std::string text;
  for (const auto* ids : {&first, &second}) {
    for (const TokenId id : *ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  }
  return io::sha256_hex(text);
}

// By task name and document number; some files call the task by another name than the data does.
std::string key_of(const json& answer) {
  std::string task = answer.at("task");
  if (task.starts_with("wikitext")) task = "wikitext";
  if (task.starts_with("gsm8k")) task = "gsm8k";
  return task + '/' + std::to_string(answer.at("doc_index").get<std::int64_t>());
}

void compare_request_input(Check& check, const Document& document, std::size_t i,
                           const json& expected, const Tokenizer& tokenizer) {
  const std::string at = "request " + std::to_string(i) + ' ';
  const EncodedRequest encoded = encode_pair(tokenizer, document.context(i), document.targets[i]);
  check.equal(at + "prompt", io::sha256_hex(document.context(i)), expected.at("prompt_sha256"));
  check.equal(at + "prompt bytes", document.context(i).size(), expected.at("prompt_bytes"));
  check.equal(at + "target", document.targets[i], expected.at("target"));
  check.equal(at + "prompt tokens", encoded.context.size(), expected.at("n_prompt_tokens"));
  check.equal(at + "target tokens", encoded.target.size(), expected.at("n_target_tokens"));
  check.equal(at + "ids", ids_digest(encoded.context, encoded.target),
              expected.at("token_ids_sha256"));
}

void compare_input(Check& check, const Document& document, const json& answer,
                   const Tokenizer& tokenizer) {
  if (answer.contains("requests")) {
    for (std::size_t i = 0; i < document.requests(); ++i) {
      compare_request_input(check, document, i, answer.at("requests").at(i), tokenizer);
    }
    if (!answer.contains("gold")) return;
    check.equal("gold", document.gold, answer.at("gold"));
    check.equal("characters", document.choice_characters, answer.at("choice_chars"));
    check.equal("bytes", document.choice_bytes, answer.at("choice_bytes"));
    return;
  }
  const std::vector<TokenId> ids = encode_prompt(tokenizer, document.contexts[0]);
  const bool page = answer.contains("text_sha256");
  check.equal("text", io::sha256_hex(document.contexts[0]),
              answer.at(page ? "text_sha256" : "prompt_sha256"));
  check.equal("tokens", ids.size(), answer.at(page ? "n_tokens" : "n_prompt_tokens"));
  check.equal("ids", ids_digest(ids, {}),
              answer.at(page ? "token_ids_sha256" : "prompt_token_ids_sha256"));
  if (!page) check.equal("shots", document.shots, answer.at("fewshot_train_indices"));
}

void compare_scores(Check& check, const Sample& sample, const json& answer) {
  for (std::size_t i = 0; i < sample.requests.size(); ++i) {
    const ScoredRequest& request = sample.requests[i];
    const json& expected = answer.at("requests").at(i);
    const std::string at = "request " + std::to_string(i) + ' ';
    check.near(at + "log-likelihood", request.log_likelihood,
               expected.at("loglikelihood").get<double>(), request.target_tokens);
    check.equal(at + "greedy", request.is_greedy, expected.at("is_greedy"));
  }
  if (answer.contains("pred")) {
    check.equal("pred", sample.chosen, answer.at("pred"));
    check.equal("pred_norm", sample.chosen_norm, answer.at("pred_norm"));
    check.equal("pred_bytes", sample.chosen_bytes, answer.at("pred_bytes"));
  }
  for (const char* list : {"metrics", "not_in_stock_metric_list"}) {
    if (!answer.contains(list)) continue;
    for (const auto& [name, value] : answer.at(list).items()) {
      if (name == "perplexity") continue;  // the log-likelihood once more
      check.equal(name, sample.values.at(name + ",none"), json(value.get<double>()));
    }
  }
}

void compare_generation(Check& check, const Sample& sample, const json& answer) {
  check.equal("generated ids", sample.ids, answer.at("gen_token_ids"));
  check.equal("raw text", sample.raw_text, answer.at("raw_decoded_text"));
  check.equal("text", sample.text, answer.at("generated_text"));
  for (const auto& [filter, expected] : answer.at("filters").items()) {
    check.equal(filter, sample.extracted.at(filter), expected.at("extracted"));
    check.equal(filter + " verdict", sample.values.at("exact_match," + filter),
                expected.at("exact_match"));
  }
}

void compare_page(Check& check, const Sample& sample, const json& answer) {
  json windows = json::array();
  std::int64_t tokens = 0;
  for (const ScoredWindow& window : sample.windows) {
    windows.push_back({window.input_tokens, window.scored_tokens});
    tokens += window.scored_tokens;
  }
  check.equal("windows", windows, answer.at("windows_input_len_scored"));
  check.near("log-likelihood", sample.values.at("word_perplexity,none"),
             answer.at("loglikelihood").get<double>(), tokens);
  const double words = answer.at("metrics").at("word_perplexity").at(1);
  const double ratio = std::exp(
      (answer.at("loglikelihood").get<double>() - sample.values.at("word_perplexity,none")) /
      words);
  check.equal("word perplexity within 1e-4", std::abs(ratio - 1) <= 1e-4, true);
  check.equal("words", sample.words, answer.at("metrics").at("word_perplexity").at(1));
  check.equal("bytes", sample.bytes, answer.at("metrics").at("byte_perplexity").at(1));
}

}  // namespace

std::vector<json> read_documents(const std::string& name) {
  const std::string text = unpacked(answers_folder() / (name + ".dev.jsonl.gz"));
  std::vector<json> rows;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    rows.push_back(json::parse(text.substr(at, end - at)));
    at = end + 1;
  }
  return rows;
}

std::vector<Task> open_for(const std::string& name, const std::vector<json>& answers) {
  TaskOptions options{.path = data_folder()};
  std::int64_t last = 0;
  options.skip = INT64_MAX;
  for (const json& answer : answers) {
    const std::int64_t index = answer.at("doc_index");
    options.skip = std::min(options.skip, index);
    last = std::max(last, index);
  }
  options.limit = last + 1;
  if (name == "wikitext_maxlen2048") options.max_length = 2048;
  const std::string task = name.substr(0, name.find(name.starts_with("wiki") ? "_max" : "_more"));
  return open_tasks(task, options);
}

Agreement compare_inputs(const std::string& name, const std::vector<Task>& tasks,
                         const std::vector<json>& answers, const Tokenizer& tokenizer) {
  Agreement agreement{.task = name, .differences = {}};
  std::map<std::string, const Document*> documents;
  for (const Task& task : tasks) {
    for (const Document& document : task.documents) {
      documents[task.name + '/' + std::to_string(document.index)] = &document;
    }
  }
  for (const json& answer : answers) {
    Check check(agreement, answer);
    const Document& document = *documents.at(key_of(answer));
    ++agreement.documents;
    agreement.requests += static_cast<int>(document.requests());
    compare_input(check, document, answer, tokenizer);
  }
  return agreement;
}

Agreement compare_answers(const std::string& name, const std::vector<TaskResult>& results,
                          const std::vector<json>& answers) {
  Agreement agreement{.task = name, .differences = {}};
  std::map<std::string, const Sample*> samples;
  for (const TaskResult& result : results) {
    for (const Sample& sample : result.samples) {
      samples[result.task.name + '/' + std::to_string(sample.document)] = &sample;
    }
  }
  for (const json& answer : answers) {
    Check check(agreement, answer);
    const Sample& sample = *samples.at(key_of(answer));
    ++agreement.documents;
    agreement.requests += static_cast<int>(std::max<std::size_t>(1, sample.requests.size()));
    if (answer.contains("requests")) {
      compare_scores(check, sample, answer);
    } else if (answer.contains("gen_token_ids")) {
      compare_generation(check, sample, answer);
    } else {
      compare_page(check, sample, answer);
    }
  }
  return agreement;
}

}  // namespace attar::eval::testing
