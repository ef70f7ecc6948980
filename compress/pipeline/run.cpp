#include "compress/pipeline/run.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <system_error>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/io/atomic_file.h"
#include "compress/io/disk.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"
#include "compress/io/output_folder.h"
#include "compress/pipeline/plan_checks.h"
#include "compress/pipeline/run_files.h"
#include "compress/pipeline/run_identity.h"
#include "compress/pipeline/run_log.h"
#include "compress/pipeline/run_phases.h"

namespace attar {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// The run that `out` already holds, if it is this one and its files have the bytes that they had;
// of whatever size, or in full.
std::optional<RunResult> already_there(const fs::path& out, const std::string& run_id,
                                       bool in_full) {
  std::error_code ignored;
  if (!fs::is_regular_file(out / "manifest.json", ignored)) return std::nullopt;
  try {
    const json manifest = io::load_json(out / "manifest.json");
    if (manifest.value("run_id", "") != run_id) return std::nullopt;
    for (const auto& [name, entry] : manifest.at("outputs").items()) {
      const bool same =
          fs::file_size(out / name, ignored) == entry.at("bytes").get<std::uint64_t>();
      if (!same || (in_full && io::sha256_file(out / name) != entry.at("sha256"))) {
        return std::nullopt;
      }
    }
    RunResult result;
    result.out = out;
    result.results = io::load_json(out / "results.json");
    result.table = result.results.at("attar").at("table").get<std::string>();
    result.was_complete = true;
    return result;
  } catch (const BadInput&) {
  } catch (const IoError&) {
  } catch (const json::exception&) {
  }
  return std::nullopt;
}

// Throws the exception in flight again, as the same type with `note` behind its message.
[[noreturn]] void rethrow_with(const std::string& note) {
  try {
    throw;
  } catch (const UsageError& error) {
    throw UsageError(error.what() + note);
  } catch (const BadInput& error) {
    throw BadInput(error.what() + note);
  } catch (const DoesNotFit& error) {
    throw DoesNotFit(error.what() + note);
  } catch (const NumericRefusal& error) {
    throw NumericRefusal(error.what() + note);
  } catch (const GateNotMet& error) {
    throw GateNotMet(error.what() + note);
  } catch (const IoError& error) {
    throw IoError(error.what() + note);
  } catch (const Stopped& error) {
    throw Stopped(error.what() + note);
  } catch (const std::exception& error) {
    throw std::runtime_error(error.what() + note);
  }
}

// Running the same command again would meet the same input.
bool would_repeat() {
  try {
    throw;
  } catch (const std::invalid_argument&) {  // UsageError, BadInput
    return true;
  } catch (const NumericRefusal&) {
    return true;
  } catch (const DoesNotFit&) {
    return true;
  } catch (...) {
    return false;
  }
}

// Folders above `out` that do not exist yet, outermost last.
std::vector<fs::path> missing_parents(const fs::path& out) {
  std::vector<fs::path> missing;
  std::error_code ignored;
  fs::path at = fs::absolute(out).lexically_normal();
  if (!at.has_filename()) at = at.parent_path();
  for (at = at.parent_path(); at.has_relative_path() && !fs::exists(at, ignored);
       at = at.parent_path()) {
    missing.push_back(at);
  }
  return missing;
}

// Of an interrupted run only checkpoints and the log are worth something.
void clear_leftovers(const fs::path& work) {
  std::error_code ignored;  // what stays is in the way of what is written again, and named there
  for (const auto& entry : fs::directory_iterator(work, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name != "checkpoint" && name != "run.jsonl") fs::remove_all(entry.path(), ignored);
  }
}

std::uint64_t bytes_in(const fs::path& folder) {
  std::uint64_t bytes = 0;
  std::error_code ignored;
  for (const auto& entry : fs::recursive_directory_iterator(folder, ignored)) {
    if (entry.is_regular_file(ignored)) bytes += entry.file_size(ignored);
  }
  return bytes;
}

// Gives a whole run its name.
void end(io::OutputFolder& folder) {
  fs::remove_all(folder.work() / "checkpoint");
  folder.commit();
}

// After a failure: keeps the work folder where blocks were finished that a later run can use.
[[noreturn]] void give_up(io::OutputFolder& folder, const std::vector<PassPhase>& phases,
                          bool passes_done, const std::vector<fs::path>& made_parents) {
  const bool any = std::any_of(phases.begin(), phases.end(), [](const PassPhase& phase) {
    return phase.checkpoint->any_on_disk();
  });
  if (fs::exists(folder.work() / "manifest.json")) {
    rethrow_with("; the run is whole in '" + folder.work().string() +
                 "', and the same command gives it its name once that is free (or with --replace, "
                 "where a run lies)");
  }
  const bool keep = any && (passes_done || !would_repeat());
  if (keep) {
    clear_leftovers(folder.work());
    rethrow_with("; finished blocks are kept in '" + folder.work().string() +
                 "' and the same command goes on from there");
  }
  folder.discard();
  std::error_code ignored;
  for (const fs::path& parent : made_parents) fs::remove(parent, ignored);
  throw;
}

// What the linear layers take as they are held, in bits a weight: codes, scales and zeros, and the
// values of those not in codes. Some passes choose the grid themselves, so the plan does not know.
double bits_of(const Model& model) {
  double bits = 0, weights = 0;
  for (std::int64_t i = 0; i < model.config().layers; ++i) {
    const Block block = model.block(i);
    for (const Role role : roles_of(block)) {
      const WeightShape shape = shape_of(block[role].weight);
      bits += 8 * static_cast<double>(stored_bytes(block[role].weight));
      weights += static_cast<double>(shape.out * shape.in);
    }
    model.done_with_block(i);
  }
  return bits / weights;
}

void write_files(RunRecord& record, const fs::path& work, RunResult& result) {
  for (const ExportStep& step : record.recipe.exports) {
    if (step.options.format == ExportFormat::kGguf) continue;
    io::write_file(work / step.config.path / "README.md", model_card(record, step));
  }
  result.table = summary_table(record);
  result.results = results_of(record);
  io::write_json(work / "results.json", result.results);
  io::write_file(work / "report.html", report_html(record));
}

}  // namespace

RunResult run(const Recipe& recipe, const Engine& engine, const RunOptions& options) {
  NoProgress silent;
  Progress& progress = options.progress ? *options.progress : silent;
  RunRecord record;
  record.recipe = recipe;
  record.resolved = recipe.resolved(*engine.registry);
  PlanOptions plan_options;
  plan_options.probe_speed = false;
  record.plan = make_plan(recipe, *engine.registry, plan_options);
  const std::shared_ptr<const ModelSource> source = open_model(recipe.model);
  record.model_sha256 = source->sha256();
  record.model_bytes = source->file_bytes();
  const RunIdentity identity = identify(recipe, *engine.registry, record.model_sha256);
  record.run_id = identity.run;
  record.weights_id = identity.weights;
  if (options.replace) {
    for (const std::string& path : recipe.paths_read()) keep_out_of(options.out, path);
  }
  // Who allows replacing it doubts what is there.
  if (auto done = already_there(options.out, identity.run, options.replace)) {
    return *std::move(done);
  }

  const std::vector<fs::path> made_parents = missing_parents(options.out);
  const std::string id = identity.weights.substr(0, 16);
  // What an interrupted run has written is there already, or goes.
  const std::uint64_t there = bytes_in(io::OutputFolder::work_of(options.out, id));
  check_output(options.out, record.plan.disk_bytes - std::min(there, record.plan.disk_bytes));
  std::vector<std::string> replaceable;
  if (options.replace) replaceable = {"manifest.json", "run.jsonl"};
  io::OutputFolder folder(options.out, id, replaceable);
  const auto passes = make_passes(recipe, *engine.registry);
  plan_passes(passes, source->config());  // tells each pass what comes later
  const std::vector<PassPhase> pass_phases =
      attar::pass_phases(passes, folder.work() / "checkpoint", id);
  RunResult result;
  bool passes_done = false;
  try {
    if (auto done = already_there(folder.work(), identity.run, true)) {  // all but its name
      end(folder);
      done->out = folder.out();
      done->was_complete = false;
      return *std::move(done);
    }
    if (folder.resumed()) clear_leftovers(folder.work());
    RunLog log(folder.work() / "run.jsonl");
    RunContext context;
    context.seed = recipe.seed;
    context.strict = recipe.strict;
    context.stop = options.stop;
    context.progress = [&](std::string_view what) { progress.detail(what); };
    RunPhases phases{record, engine, context, progress, log, folder.work()};
    phases.start(folder.resumed());
    const Model model = phases.run_passes(Model(source), pass_phases);
    passes_done = true;
    phases.export_and_verify(model);
    const Model written = phases.written(model);
    record.bits_per_weight = bits_of(written);
    phases.measure(model, written);
    record.peak_rss_bytes = io::peak_rss_bytes();
    context.check_stop();
    write_files(record, folder.work(), result);
    log.write("done", {{"peak_rss_bytes", record.peak_rss_bytes}});
    io::write_json(folder.work() / "manifest.json", manifest_of(record, folder.work()));
    end(folder);
  } catch (...) {
    give_up(folder, pass_phases, passes_done, made_parents);
  }
  result.out = folder.out();
  return result;
}

}  // namespace attar
