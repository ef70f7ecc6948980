#include "eval/scoring.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "compress/core/errors.h"
#include "eval/encoding.h"

namespace attar::eval {
namespace {

std::string name_of(const Task& task, const Document& document) {
  return task.name + " document " + std::to_string(document.index);
}

void require_finite(double log_likelihood, const std::string& where) {
  require<NumericRefusal>(std::isfinite(log_likelihood), where, "log-likelihood is ",
                          log_likelihood,
                          "; the model's weights or activations are broken, so there is no score");
}

// Requests of one document that share a context.
struct Job {
  std::size_t document = 0;
  std::vector<std::size_t> requests;
  std::vector<TokenId> context;
  std::vector<std::vector<TokenId>> targets;
};

// All requests of a document as the model gets them.
std::vector<EncodedRequest> encode_document(const Document& document, LanguageModel& model) {
  std::vector<EncodedRequest> requests;
  if (document.contexts.size() == 1) {
    requests = encode_pairs(model.tokenizer(), document.contexts[0], document.targets);
  } else {
    for (std::size_t i = 0; i < document.requests(); ++i) {
      requests.push_back(encode_pair(model.tokenizer(), document.contexts[i], document.targets[i]));
    }
  }
  for (EncodedRequest& request : requests) cut_left(request, model.max_length());
  return requests;
}

void add_jobs(const Document& document, std::size_t position, LanguageModel& model,
              std::vector<Job>& jobs) {
  const std::size_t first = jobs.size();
  std::vector<EncodedRequest> requests = encode_document(document, model);
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto job = std::find_if(jobs.begin() + first, jobs.end(),
                            [&](const Job& j) { return j.context == requests[i].context; });
    if (job == jobs.end()) {
      job = jobs.insert(job, {position, {}, std::move(requests[i].context), {}});
    }
    job->requests.push_back(i);
    job->targets.push_back(std::move(requests[i].target));
  }
}

}  // namespace

std::vector<Sample> score_requests(const Task& task, LanguageModel& model,
                                   const DocumentDone& done) {
  std::vector<Job> jobs;
  std::vector<Sample> samples(task.documents.size());
  std::vector<std::size_t> open(task.documents.size(), 0);  // jobs to go
  for (std::size_t i = 0; i < task.documents.size(); ++i) {
    const Document& document = task.documents[i];
    const std::size_t before = jobs.size();
    add_jobs(document, i, model, jobs);
    open[i] = jobs.size() - before;
    samples[i].document = document.index;
    samples[i].gold = document.gold;
    samples[i].requests.resize(document.requests());
  }
  // Neighbours in this order share the longest beginnings.
  std::stable_sort(jobs.begin(), jobs.end(),
                   [](const Job& a, const Job& b) { return a.context < b.context; });

  for (const Job& job : jobs) {
    const auto scores = model.score(job.context, job.targets);
    for (std::size_t i = 0; i < scores.size(); ++i) {
      require_finite(scores[i].log_likelihood, name_of(task, task.documents[job.document]));
      samples[job.document].requests[job.requests[i]] = {
          scores[i].log_likelihood, scores[i].is_greedy,
          static_cast<std::int64_t>(job.context.size()),
          static_cast<std::int64_t>(job.targets[i].size())};
    }
    if (--open[job.document] == 0) done();
  }
  return samples;
}

std::vector<Sample> score_texts(const Task& task, LanguageModel& model, const DocumentDone& done) {
  std::vector<Sample> samples;
  const std::int64_t length = std::min(task.max_length.value_or(INT64_MAX), model.max_length());
  for (const Document& document : task.documents) {
    const std::vector<TokenId> ids = model.tokenizer().encode(document.contexts[0]);
    Sample sample;
    sample.document = document.index;
    sample.words = document.words;
    sample.bytes = document.bytes;
    double total = 0;
    for (const EncodedRequest& window :
         rolling_windows(ids, prefix_token(model.tokenizer()), length)) {
      const auto scores = model.score(window.context, std::span(&window.target, 1));
      require_finite(scores[0].log_likelihood, name_of(task, document));
      total += scores[0].log_likelihood;
      sample.windows.push_back(
          {window.input_tokens(), static_cast<std::int64_t>(window.target.size())});
    }
    for (const MetricInfo& metric : task.metrics) sample.values[metric.key()] = total;
    samples.push_back(std::move(sample));
    done();
  }
  return samples;
}

namespace {

struct StopString {
  std::string text;
  std::size_t looks_back;  // tokens whose decoded text is searched
};

std::vector<StopString> stop_strings(const Task& task, const Tokenizer& tokenizer) {
  std::vector<std::string> texts = task.stop;
  if (const auto eos = tokenizer.eos()) {
    texts.push_back(tokenizer.decode(std::span(&*eos, 1), /*skip_special=*/false));
  }
  std::vector<StopString> result;
  for (const std::string& text : texts) {
    if (!text.empty()) result.push_back({text, tokenizer.encode(text).size() + 2});
  }
  return result;
}

bool ends_with_any(std::span<const TokenId> ids, const std::vector<StopString>& stops,
                   const Tokenizer& tokenizer) {
  return std::any_of(stops.begin(), stops.end(), [&](const StopString& stop) {
    const auto tail = ids.last(std::min(ids.size(), stop.looks_back));
    return tokenizer.decode(tail, /*skip_special=*/false).find(stop.text) != std::string::npos;
  });
}

}  // namespace

std::vector<Sample> generate_answers(const Task& task, LanguageModel& model,
                                     const DocumentDone& done) {
  const Tokenizer& tokenizer = model.tokenizer();
  const auto stops = stop_strings(task, tokenizer);
  const std::vector<TokenId> stop_ids =
      tokenizer.eos() ? std::vector<TokenId>{*tokenizer.eos()} : std::vector<TokenId>{};
  const std::int64_t room = model.max_length() - task.max_new_tokens;
  require<DoesNotFit>(room > 0, task.name, "the task generates up to ", task.max_new_tokens,
                      " tokens, but the model has only ", model.max_length(), " positions");

  std::vector<Sample> samples;
  for (const Document& document : task.documents) {
    std::vector<TokenId> prompt = encode_prompt(tokenizer, document.contexts[0]);
    if (prompt.empty()) prompt = {prefix_token(tokenizer)};
    const std::int64_t excess = static_cast<std::int64_t>(prompt.size()) - room;
    if (excess > 0) prompt.erase(prompt.begin(), prompt.begin() + excess);

    Sample sample;
    sample.document = document.index;
    sample.ids = model
                     .generate_greedy(prompt, task.max_new_tokens, stop_ids,
                                      [&](std::span<const TokenId> ids) {
                                        return ends_with_any(ids, stops, tokenizer);
                                      })
                     .ids;
    sample.raw_text = sample.text = tokenizer.decode(sample.ids, /*skip_special=*/true);
    for (const StopString& stop : stops) {
      sample.text.resize(std::min(sample.text.find(stop.text), sample.text.size()));
    }
    samples.push_back(std::move(sample));
    done();
  }
  return samples;
}

}  // namespace attar::eval
