// Answers MMLU subjects when asked, for tests/bench/mmlu.py, which takes turns with transformers.
//
//   mmlu_rounds MODEL DATA DOCUMENTS THREADS
//
// Two kinds of lines on stdin, each answered by a line of JSON on stdout:
//   requests SUBJECT   the 5-shot contexts and targets of the first DOCUMENTS questions
//   run SUBJECT        seconds, processor seconds, and the log-likelihoods of all targets
#include <chrono>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "compress/core/allocator.h"
#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/runtime/transformer.h"
#include "eval/mmlu.h"
#include "eval/runner.h"

namespace attar {
namespace {

nlohmann::json requests_of(const eval::Task& task) {
  nlohmann::json all = nlohmann::json::array();
  for (const eval::Document& document : task.documents) {
    all.push_back({{"context", document.context(0)}, {"targets", document.targets}});
  }
  return all;
}

nlohmann::json run(const eval::Task& task, LanguageModel& model) {
  const auto since = std::chrono::steady_clock::now();
  const std::clock_t processor_since = std::clock();
  const eval::TaskResult result = eval::run_task(task, model);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - since;
  nlohmann::json found = nlohmann::json::array();
  for (const eval::Sample& sample : result.samples) {
    for (const eval::ScoredRequest& request : sample.requests) {
      found.push_back(request.log_likelihood);
    }
  }
  return {{"seconds", seconds.count()},
          {"processor_seconds", static_cast<double>(std::clock() - processor_since) /
                                    static_cast<double>(CLOCKS_PER_SEC)},
          {"log_likelihoods", found}};
}

void serve(const std::string& path, const eval::TaskOptions& options) {
  const auto model = make_language_model(Model(open_model(path)), load_model_tokenizer(path));
  for (std::string what, subject; std::cin >> what >> subject;) {
    const eval::Task task = eval::open_mmlu("mmlu_" + subject, options).at(0);
    std::cout << (what == "run" ? run(task, *model) : requests_of(task)) << std::endl;
  }
}

}  // namespace
}  // namespace attar

int main(int argc, char** argv) {
  if (argc != 5) {
    std::cerr << "usage: mmlu_rounds MODEL DATA DOCUMENTS THREADS\n";
    return 2;
  }
  attar::give_large_blocks_back();
  attar::set_up_numerics();
  attar::set_threads(std::stoi(argv[4]));
  attar::serve(argv[1], {.path = argv[2], .limit = std::stoll(argv[3]), .shots = 5});
}
