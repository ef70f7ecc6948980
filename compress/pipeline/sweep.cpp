#include "compress/pipeline/sweep.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <optional>
#include <set>

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

// Whether a recipe is read with the override `assignment`, every other at its first entry.
bool is_read(const fs::path& file, const std::vector<std::string>& overrides, std::size_t at,
             const std::string& assignment, const PassRegistry& registry) {
  std::vector<std::string> tried;
  for (std::size_t i = 0; i < overrides.size(); ++i) {
    tried.push_back(i == at ? assignment : overrides[i]);
  }
  try {
    load_recipe(file, tried, registry);
    return true;
  } catch (const UsageError&) {
    return false;
  }
}

// Which of the overrides are lists that the recipe does not take, but takes an entry of: any, since
// another may be one that other options refuse.
std::vector<bool> swept_ones(const fs::path& file, const std::vector<std::string>& overrides,
                             const PassRegistry& registry) {
  // Whether the others are lists by right is not known yet: both ways are tried.
  std::vector<std::string> single;
  for (const std::string& assignment : overrides) single.push_back(entries_of(assignment).front());
  std::vector<bool> swept;
  for (std::size_t i = 0; i < overrides.size(); ++i) {
    const auto reads = [&](const std::string& assignment) {
      return is_read(file, single, i, assignment, registry) ||
             is_read(file, overrides, i, assignment, registry);
    };
    const std::vector<std::string> entries = entries_of(overrides[i]);
    swept.push_back(single[i] != overrides[i] && !reads(overrides[i]) &&
                    std::any_of(entries.begin(), entries.end(), reads));
  }
  return swept;
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
  const std::vector<bool> swept = swept_ones(file, overrides, registry);
  for (std::size_t i = 0; i < overrides.size(); ++i) {
    const bool sweeps = swept[i];
    const std::vector<std::string> entries =
        sweeps ? entries_of(overrides[i]) : std::vector<std::string>{overrides[i]};
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
  std::set<std::string> names;
  for (const Combination& combination : combinations) {
    const std::string name = folder_name(combination.swept);
    constexpr std::size_t kLongest = 200;  // of 255 bytes, with what a run adds while it works
    require<UsageError>(name.size() <= kLongest && names.insert(name).second, "sweep", "'",
                        name.substr(0, kLongest),
                        "' is too long for a folder's name, or two runs would have it; name each "
                        "value once and sweep less at a time");
    runs.push_back({name, load_recipe(file, combination.all, registry)});
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

nlohmann::ordered_json sweep_json(const std::vector<SweepOutcome>& outcomes) {
  nlohmann::ordered_json all = nlohmann::ordered_json::object();
  for (const SweepOutcome& one : outcomes) {
    all[one.name] =
        one.refusal.empty() ? one.result.results : nlohmann::ordered_json{{"refused", one.refusal}};
  }
  return all;
}

}  // namespace attar
