#include "compress/pipeline/plan_checks.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <map>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/disk.h"
#include "compress/io/hdf5_store.h"
#include "compress/linalg/product.h"
#include "compress/pipeline/chat.h"
#include "compress/pipeline/measure.h"
#include "compress/pipeline/memory_model.h"
#include "compress/tokenize/documents.h"
#include "compress/train/vocabulary_map.h"

namespace attar {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kTokenizedBytes = 16 << 20;

// Bytes of a readable text file.
std::uint64_t text_bytes(const std::string& path, const std::string& where) {
  std::error_code error;
  const bool regular = fs::is_regular_file(path, error);
  require<IoError>(!error || error == std::errc::no_such_file_or_directory ||
                       error == std::errc::not_a_directory,
                   where, "'", path, "': ", error.message());
  require<IoError>(regular, where, "there is no file '", path,
                   "'; relative paths are looked for beside the recipe, then in the working "
                   "directory");
  require<IoError>(access(path.c_str(), R_OK) == 0, where, "no permission to read '", path,
                   "'; change its mode or its owner");
  const std::uint64_t bytes = fs::file_size(path, error);
  require<IoError>(!error, where, "'", path, "': ", error.message());
  require(bytes > 0, where, "'", path, "' is empty; give a file with text");
  return bytes;
}

void check_calibration(const Recipe& recipe, const ModelConfig& config) {
  const CalibrationConfig& calibration = *recipe.calibration;
  const std::string where = recipe.file.string() + ": calibration";
  std::uint64_t bytes = 0;
  for (const std::string& text : calibration.text) bytes += text_bytes(text, where);
  require<UsageError>(calibration.length <= config.max_positions, where, "length ",
                      calibration.length, " exceeds the model's ", config.max_positions,
                      " positions; lower calibration.length");
  if (!calibration.store.empty()) io::Hdf5Store::require_own(calibration.store);
  if (bytes <= kTokenizedBytes) {
    read_calibration(calibration, *load_model_tokenizer(recipe.model), recipe.seed);
  }
}

// A teacher of another file. `rows_go`: some pass takes tokens away, so which the student will have
// is not known.
void check_teacher(const std::string& name, const std::string& where, const Recipe& recipe,
                   const ModelConfig& config, bool rows_go) {
  std::error_code error;
  require<IoError>(
      fs::exists(name, error), where, "teacher: there is no '", name,
      "'; give a folder or a GGUF file, or leave it out for what the recipe starts from");
  const auto source = open_model(name);
  const auto tokenizer = load_model_tokenizer(name);
  if (rows_go) return;
  match_tokens(*load_model_tokenizer(recipe.model), config.vocabulary, *tokenizer,
               source->config().vocabulary);
}

// Files that a pass names in its options `text` and `teacher`.
void check_pass_files(const PassStep& step, const Recipe& recipe, const ModelConfig& config,
                      bool rows_go) {
  if (!step.options.is_object()) return;
  const nlohmann::json text = step.options.value("text", nlohmann::json());
  const auto check = [&](const nlohmann::json& one) {
    const std::string path = one.is_string() ? one.get<std::string>() : "";
    if (path.empty() || text_bytes(path, step.where + ": text") > kTokenizedBytes) return;
    read_text_file(path);
  };
  if (text.is_array()) std::for_each(text.begin(), text.end(), check);
  check(text);
  const nlohmann::json teacher = step.options.value("teacher", nlohmann::json("original"));
  if (!teacher.is_string() || teacher == "original") return;
  check_teacher(teacher.get<std::string>(), step.where, recipe, config, rows_go);
}

constexpr std::int64_t kBytesAToken = 4;  // of a text that is too long to be tokenized here

// Returns how many windows or documents it has.
std::int64_t check_eval(const EvalStep& step, const Recipe& recipe) {
  if (step.kind == EvalKind::kTask) {
    std::int64_t documents = 0;
    for (const eval::Task& task : eval::open_tasks(step.name, step.task.options())) {
      documents += std::ssize(task.documents);
    }
    return documents;
  }
  const std::uint64_t bytes = text_bytes(step.text.text, step.where);
  if (bytes > kTokenizedBytes) {
    const auto whole = static_cast<std::int64_t>(bytes) / kBytesAToken / step.text.length;
    return step.text.windows == 0 ? whole : std::min(whole, step.text.windows);
  }
  return text_windows(step, *load_model_tokenizer(recipe.model)).ids.size(0);
}

double seconds_of(double flops, double speed) { return speed > 0 ? flops / speed : 0; }

// A choice task's documents cost about so many tokens each; a rough figure for a time estimate.
constexpr double kTokensADocument = 400;

void add_measurements(const Recipe& recipe, const Plan& plan, std::vector<PlannedPhase>& phases) {
  double text_tokens = 0, task_tokens = 0;
  std::int64_t longest_text = 0, longest_window = 0;
  for (std::size_t i = 0; i < recipe.evals.size(); ++i) {
    const EvalStep& step = recipe.evals[i];
    if (step.kind == EvalKind::kTask) {
      task_tokens += kTokensADocument * static_cast<double>(plan.measured[i]);
      continue;
    }
    const std::int64_t windows = plan.measured[i];
    longest_text = std::max(longest_text, windows * step.text.length);
    longest_window = std::max(longest_window, step.text.length);
    text_tokens += static_cast<double>(windows * step.text.length);
  }
  const double flops = 2 * (forward_flops(plan.config, 512) + head_flops(plan.config));
  // Both models use one head unless a pass changes it, or it is read from an export.
  const bool head_changes =
      !plan.exports.empty() ||
      std::any_of(plan.tensors.begin(), plan.tensors.end(), [](const PlannedTensor& tensor) {
        return !tensor.name.starts_with("model.layers.") && !tensor.steps.empty();
      });
  double measured = 1;  // the first export, or the model; others that round by themselves
  for (std::size_t i = 1; i < plan.exports.size(); ++i) measured += plan.exports[i].rounds ? 1 : 0;
  if (text_tokens > 0) {
    phases.push_back(
        {"measure texts",
         divergence_peak_bytes(plan.config, longest_text, longest_window, head_changes ? 2 : 1),
         seconds_of(measured * text_tokens * flops, plan.gemm_flops)});
  }
  if (task_tokens > 0) {
    phases.push_back({"measure tasks", tasks_peak_bytes(plan.config, 2048),
                      seconds_of(task_tokens * flops, plan.gemm_flops)});
  }
}

// There and back is three times there; a teacher goes there beside.
double learning_flops(const Pass& pass, const Recipe& recipe, const ModelConfig& config) {
  const CalibrationConfig calibration = recipe.calibration.value_or(CalibrationConfig{});
  const double tokens = pass.learning_tokens(
      static_cast<double>(calibration.sequences * calibration.length), calibration.length);
  const double head = pass.needs().tokenizer ? head_flops(config) : 0;
  return tokens * (pass.needs().teacher ? 4 : 3) *
         (forward_flops(config, calibration.length) + head);
}

PlannedPhase pass_phase(const Recipe& recipe, const std::vector<std::unique_ptr<Pass>>& passes,
                        const Plan& plan) {
  const ModelConfig& config = plan.config;
  CalibrationShape shape;
  std::int64_t working = 0;
  double flops = 0;
  double columns = 0, cubes = 0;  // of one block
  for (const Role role : kRoles) {
    const LinearShape linear = shape_of(config, role);
    cubes += static_cast<double>(linear.out) * static_cast<double>(linear.in * linear.in);
  }
  for (const Role role : {Role::kQuery, Role::kOutput, Role::kGate, Role::kDown}) {
    const auto in = static_cast<double>(shape_of(config, role).in);
    columns += in * in;
  }
  for (const auto& pass : passes) {
    working = std::max(working, pass->working_bytes(config));
    flops += learning_flops(*pass, recipe, config);
    if (!pass->needs().calibration) continue;
    shape.sequences = recipe.calibration->sequences;
    shape.length = recipe.calibration->length;
    shape.batch = recipe.calibration->sequences_a_forward();
    const auto tokens = static_cast<double>(shape.sequences * shape.length);
    shape.dense_stream = shape.dense_stream || pass->needs().dense_stream;
    shape.block_outputs = shape.block_outputs || pass->needs().block_outputs;
    flops += (pass->needs().dense_stream ? 3 : 2) * tokens * forward_flops(config, shape.length) +
             static_cast<double>(config.layers) * (tokens * 2 * columns + 8 * cubes);
  }
  std::map<std::string, std::int64_t> bytes_of_block;
  for (const PlannedTensor& tensor : plan.tensors) {
    if (!tensor.name.starts_with("model.layers.")) continue;
    bytes_of_block[tensor.name.substr(0, tensor.name.find('.', 13))] += tensor.source_bytes;
  }
  std::int64_t block_bytes = 0;
  for (const auto& [block, bytes] : bytes_of_block) block_bytes = std::max(block_bytes, bytes);
  std::int64_t peak = blockwise_peak_bytes(config, shape, working, block_bytes);
  if (shape.sequences > 0 && recipe.calibration->token_weights == "fisher") {
    const std::int64_t windows = std::min(recipe.calibration->weight_windows, shape.sequences);
    flops += 4 * static_cast<double>(windows * shape.length) * forward_flops(config, shape.length);
    peak = std::max(peak, weighting_peak_bytes(config, shape.length, block_bytes));
  }
  return {"passes", peak, seconds_of(flops, plan.gemm_flops)};
}

}  // namespace

std::vector<std::int64_t> check_texts(const Recipe& recipe, const ModelConfig& config,
                                      bool rows_go) {
  std::vector<std::int64_t> measured;
  if (recipe.calibration) check_calibration(recipe, config);
  for (const PassStep& step : recipe.passes) {
    check_pass_files(step, recipe, config, rows_go);
  }
  for (const EvalStep& step : recipe.evals) {
    if (step.kind == EvalKind::kText) check_window(step, config);
    try {
      measured.push_back(check_eval(step, recipe));
    } catch (const UsageError& error) {
      throw UsageError(message(step.where, error.what()));
    }
  }
  if (recipe.evals.empty() && recipe.chat.empty()) return measured;
  const auto tokenizer = load_model_tokenizer(recipe.model);
  for (const std::string& question : recipe.chat) chat_prompt(*tokenizer, question);
  return measured;
}

void keep_out_of(const fs::path& out, const fs::path& input) {
  std::error_code failure;
  const fs::path folder = fs::weakly_canonical(out, failure);
  const fs::path file = fs::weakly_canonical(input, failure);
  if (failure) return;
  const auto [end, at] = std::mismatch(folder.begin(), folder.end(), file.begin(), file.end());
  require<UsageError>(end != folder.end(), out.string(), "'", input.string(),
                      "', which is read, lies there, and replacing it would remove both; choose "
                      "another output");
}

void check_output(const fs::path& out, std::uint64_t needed_bytes) {
  fs::path parent = fs::absolute(out).lexically_normal();
  if (!parent.has_filename()) parent = parent.parent_path();
  std::error_code ignored;
  for (parent = parent.parent_path(); !fs::exists(parent, ignored) && parent.has_relative_path();) {
    parent = parent.parent_path();
  }
  require<IoError>(fs::is_directory(parent, ignored), out.string(), "'", parent.string(),
                   "' is no folder; give another output folder");
  require<IoError>(access(parent.c_str(), W_OK | X_OK) == 0, out.string(),
                   "no permission to write in '", parent.string(),
                   "'; change its mode or give another output folder");
  const std::uint64_t room = io::free_bytes(out);
  require<DoesNotFit>(needed_bytes <= room, out.string(), "the run writes ",
                      readable_bytes(needed_bytes), ", but '", parent.string(), "' has ",
                      readable_bytes(room), " left; free space or give another output folder");
}

double measure_gemm_flops() {
  const at::Tensor a = at::ones({512, 1024}, at::kFloat);
  const at::Tensor b = at::ones({1024, 1024}, at::kFloat);
  linalg::product(a, b);
  const auto started = std::chrono::steady_clock::now();
  double seconds = 0;
  std::int64_t rounds = 0;
  for (; seconds < 0.4; ++rounds) {
    linalg::product(a, b);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  }
  return 2.0 * 512 * 1024 * 1024 * static_cast<double>(rounds) / seconds;
}

std::vector<PlannedPhase> plan_phases(const Recipe& recipe,
                                      const std::vector<std::unique_ptr<Pass>>& passes,
                                      const Plan& plan) {
  std::vector<PlannedPhase> phases;
  if (!passes.empty()) phases.push_back(pass_phase(recipe, passes, plan));
  if (!recipe.exports.empty()) {
    phases.push_back({"export", export_peak_bytes(plan.config), 0});
    phases.push_back({"verify", divergence_peak_bytes(plan.config, 128, 64, 2), 0});
  }
  add_measurements(recipe, plan, phases);
  return phases;
}

}  // namespace attar
