// The entries of a recipe's lists, each read and checked, with its place for messages
// ("r.yaml: passes[1] quantize.gptq").
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "compress/core/fields.h"
#include "compress/formats/export.h"
#include "eval/task.h"

namespace attar {

struct PassStep {
  std::string name;
  nlohmann::json options;  // a mapping, possibly empty; already made once without complaint
  std::string where;
};

// Bounds that the compressed model must hold against the model that the run began with. A negative
// bound is none.
struct GateConfig {
  double kl_mean = -1;           // at most, nats
  double kl_p99 = -1;            // at most, nats
  double top1 = -1;              // at least, share of equal most likely tokens
  double perplexity_ratio = -1;  // at most, after / before
  std::string action = "stop";

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = GateConfig;
    visit("kl_mean", &C::kl_mean, Range{0.0, 100.0}, "Largest mean KL to the original, nats.");
    visit("kl_p99", &C::kl_p99, Range{0.0, 100.0}, "Largest 99th percentile of the KL, nats.");
    visit("top1", &C::top1, Range{0.0, 1.0}, "Smallest share of equal most likely tokens.");
    visit("perplexity_ratio", &C::perplexity_ratio, Range{0.0, 1e6},
          "Largest perplexity as a multiple of the original's.");
    visit("action", &C::action, OneOf{{"stop", "warn"}},
          "What happens when a bound does not hold: stop (exit code 6) or warn.");
  }
  bool bounded() const { return kl_mean >= 0 || kl_p99 >= 0 || top1 >= 0 || perplexity_ratio >= 0; }
};

// `perplexity` and `divergence`: both read windows of a text; in a run either gives perplexity,
// KL and top-1 agreement, because the original model is at hand.
struct TextEvalConfig {
  std::string text;
  std::int64_t length = 1024;  // tokens a window
  std::int64_t windows = 0;    // the first so many; 0: all
  std::int64_t kv_bits = 32;   // of the changed model's keys and values: 32, 8 or 4

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = TextEvalConfig;
    visit(
        "text", &C::text, Any{},
        "Text file, UTF-8; of a *.jsonl with {\"prompt\", \"completion\"} a line only what answers "
        "counts.");
    visit("length", &C::length, Range<std::int64_t>{8, 1 << 17}, "Tokens a window.");
    visit("windows", &C::windows, Range<std::int64_t>{0, 1 << 20},
          "How many windows from the start; 0: all.");
    visit("kv_bits", &C::kv_bits, Range<std::int64_t>{4, 32},
          "Bits of keys and values in the model measured: 32 (float32), 8 or 4.");
  }
};

// Any task of eval/task.h. Negative: the task's own.
struct TaskEvalConfig {
  std::string path;
  std::int64_t limit = -1;
  std::int64_t skip = 0;
  std::int64_t shots = -1;
  std::int64_t max_length = -1;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = TaskEvalConfig;
    constexpr Range<std::int64_t> kCount{0, 1 << 30};
    visit("path", &C::path, Any{}, "Folder with the task's files, or the file to evaluate.");
    visit("limit", &C::limit, Range<std::int64_t>{1, 1 << 30}, "The first so many documents.");
    visit("skip", &C::skip, kCount, "But not the first so many of these.");
    visit("shots", &C::shots, kCount, "Worked examples in front of each document.");
    visit("max_length", &C::max_length, Range<std::int64_t>{8, 1 << 20},
          "Tokens of a rolling window (wikitext).");
  }
  eval::TaskOptions options() const;
};

enum class EvalKind { kText, kTask };

struct EvalStep {
  std::string name;  // "perplexity", "divergence", or a task
  EvalKind kind = EvalKind::kTask;
  TextEvalConfig text;
  TaskEvalConfig task;
  std::string where;

  nlohmann::json options() const;
};

struct ExportConfig {
  std::string format;
  std::string path;  // inside of the output folder
  std::string type;
  std::string embedding;
  std::string importance;
  bool requantize = false;
  bool two_bits = false;
  std::string name;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = ExportConfig;
    visit("format", &C::format, OneOf{{"gguf", "compressed-tensors", "huggingface", "peft"}},
          "What programs shall load it.");
    visit("path", &C::path, Any{}, "File or folder inside of the output folder.");
    visit("type", &C::type, Any{},
          "gguf: block type or stock mixture (Q4_K_M, IQ4_NL, ...); others: type of plain values.");
    visit("embedding", &C::embedding, Any{}, "gguf: type of embedding and head.");
    visit("importance", &C::importance, Any{},
          "gguf: importance matrix of llama.cpp (.gguf or .dat); what no pass has rounded is "
          "rounded for the least error weighted by it.");
    visit("requantize", &C::requantize, Any{}, "gguf: round again what the type cannot hold.");
    visit("two_bits", &C::two_bits, Any{}, "compressed-tensors: allow 2 bits.");
    visit("name", &C::name, Any{}, "gguf: general.name.");
  }
};

struct ExportStep {
  ExportConfig config;
  ExportOptions options;
  std::string where;
};

// One entry of `eval`, in either form. Throws UsageError for an unknown name, key or value.
EvalStep read_eval_step(const nlohmann::json& entry, const std::string& where);

// Throws UsageError where a task stands twice: its results are known by its name.
void refuse_repeated_tasks(const std::vector<EvalStep>& steps);

ExportStep read_export_step(const nlohmann::json& entry, const std::string& where);

// "- name: {...}", "- name" or "- {KEY: name, ...}" -> name and options. `key` is "pass", "task".
struct NamedOptions {
  std::string name;
  nlohmann::json options;
};
NamedOptions read_named_step(const nlohmann::json& entry, std::string_view key,
                             const std::string& where);

}  // namespace attar
