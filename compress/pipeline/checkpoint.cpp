#include "compress/pipeline/checkpoint.h"

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
      blocks_(folder_, [id](std::int64_t index) { return stem(index, id) + ".safetensors"; }) {}

std::filesystem::path Checkpoint::report_path(std::int64_t index) const {
  return blocks_.path_of(index).replace_extension(".json");
}

std::optional<Block> Checkpoint::read(std::int64_t index) const {
  return finished_.contains(index) ? blocks_.read(index) : std::nullopt;
}

void Checkpoint::write(std::int64_t index, const Block& block) {
  if (finished_.insert(index).second) blocks_.write(index, block);
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
}

bool Checkpoint::any_on_disk() const {
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, missing)) {
    if (entry.path().extension() == ".json") return true;
  }
  return false;
}

}  // namespace attar
