#include "compress/pipeline/sweep.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>

#include "compress/core/errors.h"
#include "compress/io/yaml.h"
#include "eval/table.h"

namespace attar {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// "key=[a, b]" as "key=a", "key=b"; the override alone where its value is no list.
std::vector<std::string> entries_of(const std::string& assignment) {
  const std::size_t equals = assignment.find('=');
  if (equals == assignment.npos) return {assignment};
  const json value = io::parse_yaml(assignment.substr(equals + 1), "override '" + assignment + "'");
  if (!value.is_array() || value.empty()) return {assignment};
  std::vector<std::string> entries;
  for (const json& entry : value) {
    entries.push_back(assignment.substr(0, equals + 1) + entry.dump());
  }
  return entries;
}

bool is_read(const fs::path& file, const std::string& override, const PassRegistry& registry) {
  try {
    load_recipe(file, {override}, registry);
    return true;
  } catch (const UsageError&) {
    return false;
  }
}

std::string folder_name(const std::vector<std::string>& assignments) {
  std::string name;
  for (const std::string& assignment : assignments) {
    name += (name.empty() ? "" : ",") + assignment;
  }
  std::erase(name, '"');
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

std::string number(double value, const char* pattern) {
  std::array<char, 48> text;
  std::snprintf(text.data(), text.size(), pattern, value);
  return text.data();
}

// What is to be small.
using Place = std::array<double, 3>;  // bytes of the first export (0 without), bits a weight, KL

std::optional<Place> place_of(const SweepOutcome& outcome) {
  if (!outcome.refusal.empty()) return std::nullopt;
  const auto& own = outcome.result.results.at("attar");
  if (own.at("texts").empty()) return std::nullopt;
  const auto& exports = own.at("exports");
  return Place{exports.empty() ? 0.0 : exports.front().at("bytes").get<double>(),
               own.at("bits_per_weight").get<double>(),
               own.at("texts").front().at("kl_mean").at("value").get<double>()};
}

bool beats(const Place& a, const Place& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] > b[i]) return false;
  }
  return a != b;
}

}  // namespace

std::vector<SweepRun> sweep_runs(const fs::path& file, const std::vector<std::string>& overrides,
                                 const PassRegistry& registry) {
  struct Combination {
    std::vector<std::string> all, swept;
  };
  std::vector<Combination> combinations(1);
  for (const std::string& assignment : overrides) {
    std::vector<std::string> entries = entries_of(assignment);
    const bool sweeps = entries.front() != assignment && !is_read(file, assignment, registry) &&
                        is_read(file, entries.front(), registry);
    if (!sweeps) entries = {assignment};
    std::vector<Combination> longer;
    for (const Combination& combination : combinations) {
      for (const std::string& entry : entries) {
        longer.push_back(combination);
        longer.back().all.push_back(entry);
        if (sweeps) longer.back().swept.push_back(entry);
      }
    }
    combinations = std::move(longer);
  }
  std::vector<SweepRun> runs;
  for (const Combination& combination : combinations) {
    runs.push_back({folder_name(combination.swept), load_recipe(file, combination.all, registry)});
  }
  return runs;
}

std::string sweep_table(const std::vector<SweepOutcome>& outcomes) {
  std::vector<std::optional<Place>> places;
  for (const SweepOutcome& outcome : outcomes) places.push_back(place_of(outcome));
  std::vector<std::vector<std::string>> rows = {
      {"run", "bytes", "bits a weight", "KL", "perplexity", "best"}};
  std::string refused;
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    const SweepOutcome& outcome = outcomes[i];
    if (!outcome.refusal.empty()) {
      refused += outcome.name + ": " + outcome.refusal + "\n";
      continue;
    }
    const auto& own = outcome.result.results.at("attar");
    const auto& exports = own.at("exports");
    std::vector<std::string> row = {
        outcome.name,
        exports.empty() ? "" : std::to_string(exports.front().at("bytes").get<std::uint64_t>()),
        number(own.at("bits_per_weight").get<double>(), "%.3f")};
    if (const auto& texts = own.at("texts"); texts.empty()) {
      row.insert(row.end(), 2, "");
    } else {
      row.push_back(number(texts.front().at("kl_mean").at("value").get<double>(), "%.4f"));
      row.push_back(number(texts.front().at("perplexity_after").at("value").get<double>(), "%.3f"));
    }
    const bool beaten = std::any_of(places.begin(), places.end(), [&](const auto& other) {
      return other && places[i] && beats(*other, *places[i]);
    });
    row.push_back(places[i] && !beaten ? "*" : "");
    rows.push_back(std::move(row));
  }
  return eval::markdown_table(rows, {false, true, true, true, true, false}) + refused;
}

}  // namespace attar
