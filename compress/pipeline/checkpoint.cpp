#include "compress/pipeline/checkpoint.h"

#include <algorithm>
#include <system_error>

#include "compress/core/errors.h"
#include "compress/io/atomic_file.h"
#include "compress/io/json.h"

namespace attar {
namespace {

std::string stem(std::int64_t index, const std::string& id) {
  const std::string number = std::to_string(index);
  return "block-" + std::string(5 - std::min<std::size_t>(5, number.size()), '0') + number + "-" +
         id;
}

}  // namespace

Checkpoint::Checkpoint(std::filesystem::path folder, std::string id)
    : folder_(std::move(folder)),
      id_(id),
      blocks_(folder_, [id](std::int64_t index) { return stem(index, id) + ".safetensors"; }) {}

std::filesystem::path Checkpoint::report_path(std::int64_t index) const {
  return blocks_.path_of(index).replace_extension(".json");
}

std::optional<Block> Checkpoint::read(std::int64_t index) const {
  return finished_.contains(index) ? blocks_.read(index) : std::nullopt;
}

void Checkpoint::write(std::int64_t index, const Block& block) {
  if (durable_.contains(index)) return;
  blocks_.write(index, block);
  finished_.insert(index);
}

std::optional<BlockOutcome> Checkpoint::restore(std::int64_t index) {
  std::error_code ignored;
  if (!std::filesystem::exists(report_path(index), ignored)) return std::nullopt;
  try {
    std::optional<Block> block = blocks_.read(index);
    if (!block) return std::nullopt;
    BlockOutcome outcome;
    outcome.block = *std::move(block);
    outcome.reports = io::load_json(report_path(index)).get<std::vector<PassReport>>();
    finished_.insert(index);
    durable_.insert(index);
    return outcome;
  } catch (const BadInput&) {
  } catch (const nlohmann::json::exception&) {
  }
  damaged_.push_back(blocks_.path_of(index).filename().string());
  return std::nullopt;
}

void Checkpoint::finish(std::int64_t index, const BlockOutcome& outcome) {
  blocks_.write(index, outcome.block);
  io::write_json(report_path(index), nlohmann::json(outcome.reports));
  finished_.insert(index);
  durable_.insert(index);
}

std::optional<OuterWeights> Checkpoint::read_outer() const {
  return outer_finished_ ? blocks_.read_outer() : std::nullopt;
}

void Checkpoint::write_outer(const OuterWeights& outer) {
  blocks_.write_outer(outer);
  outer_finished_ = true;
}

std::filesystem::path Checkpoint::done_path() const { return folder_ / ("done-" + id_ + ".json"); }

std::optional<Checkpoint::Done> Checkpoint::restore_done() {
  std::error_code ignored;
  if (!std::filesystem::exists(done_path(), ignored)) return std::nullopt;
  try {
    const nlohmann::json json = io::load_json(done_path());
    const auto written = json.at("written").get<std::set<std::int64_t>>();
    const bool outer = json.at("outer").get<bool>();
    const bool whole = std::all_of(written.begin(), written.end(), [&](std::int64_t index) {
      return blocks_.read(index).has_value();
    });
    if (whole && (!outer || blocks_.read_outer())) {
      finished_ = written;
      outer_finished_ = outer;
      return Done{json.at("kept").get<std::vector<std::int64_t>>(),
                  json.at("tokens").get<std::vector<std::int64_t>>(),
                  json.at("report").get<PassReport>()};
    }
  } catch (const BadInput&) {
  } catch (const nlohmann::json::exception&) {
  }
  damaged_.push_back(done_path().filename().string());
  return std::nullopt;
}

void Checkpoint::finish_done(const Done& done) {
  io::write_json(done_path(), nlohmann::json{{"kept", done.kept},
                                             {"tokens", done.tokens},
                                             {"written", finished_},
                                             {"outer", outer_finished_},
                                             {"report", done.report}});
  std::error_code ignored;
  std::filesystem::remove_all(state_folder(), ignored);
}

bool Checkpoint::any_on_disk() const {
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, missing)) {
    if (entry.path().extension() == ".json") return true;
  }
  return std::filesystem::exists(state_folder(), missing) &&
         !std::filesystem::is_empty(state_folder(), missing);
}

}  // namespace attar
