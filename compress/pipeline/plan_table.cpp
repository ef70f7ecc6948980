#include <array>
#include <cstdio>
#include <sstream>

#include "compress/pipeline/plan.h"

namespace attar {
namespace {

using nlohmann::json;

std::string formatted(const char* pattern, double value, const char* unit) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), pattern, value, unit);
  return text.data();
}

// Everything of a tensor but the number of its block.
std::string kind_of_tensor(const PlannedTensor& tensor) {
  std::string key = tensor.name;
  if (key.starts_with("model.layers.")) key = key.substr(key.find('.', 13) + 1);
  for (const PlannedStep& step : tensor.steps) key += "|" + step.rule + "|" + step.action;
  for (const std::string& type : tensor.export_types) key += "|" + type;
  return key + "|" + tensor.source_type + "|" + std::to_string(tensor.out) + "|" +
         std::to_string(tensor.in);
}

struct Folded {
  const PlannedTensor* first = nullptr;
  std::int64_t count = 0;
};

std::vector<Folded> fold(const Plan& plan, bool every_tensor) {
  std::vector<Folded> rows;
  std::map<std::string, std::size_t> known;
  for (const PlannedTensor& tensor : plan.tensors) {
    const auto [entry, is_new] = known.emplace(kind_of_tensor(tensor), rows.size());
    if (every_tensor || is_new) {
      rows.push_back({&tensor, 1});
    } else {
      ++rows[entry->second].count;
    }
  }
  return rows;
}

void print_tensor(std::ostream& out, const Folded& row) {
  const PlannedTensor& tensor = *row.first;
  out << tensor.name;
  if (row.count > 1) out << " and " << row.count - 1 << " like it";
  out << "  [" << tensor.out << " x " << tensor.in << "]  " << tensor.source_type << ' '
      << readable_bytes(static_cast<std::uint64_t>(tensor.source_bytes)) << '\n';
  for (const PlannedStep& step : tensor.steps) {
    out << "    " << step.pass << ": " << step.action << "  (" << step.rule << ")\n";
  }
  if (!tensor.steps.empty()) {
    out << "    result: " << tensor.result_type << ' '
        << readable_bytes(static_cast<std::uint64_t>(tensor.result_bytes)) << '\n';
  }
}

}  // namespace

std::string readable_bytes(std::uint64_t bytes) {
  static constexpr std::array<const char*, 5> kUnits = {"B", "kB", "MB", "GB", "TB"};
  auto value = static_cast<double>(bytes);
  std::size_t unit = 0;
  for (; value >= 1000 && unit + 1 < kUnits.size(); ++unit) value /= 1000;
  return formatted(unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
}

std::string readable_seconds(double seconds) {
  if (seconds < 90) return formatted("%.0f %s", seconds, "s");
  if (seconds < 5400) return formatted("%.1f %s", seconds / 60, "min");
  return formatted("%.1f %s", seconds / 3600, "h");
}

json to_json(const Plan& plan) {
  json tensors = json::array(), exports = json::array(), phases = json::array();
  for (const PlannedTensor& tensor : plan.tensors) {
    json steps = json::array(), exported = json::array();
    for (const PlannedStep& step : tensor.steps) {
      steps.push_back({{"pass", step.pass}, {"rule", step.rule}, {"action", step.action}});
    }
    for (std::size_t index = 0; index < tensor.export_types.size(); ++index) {
      exported.push_back({{"path", plan.exports[index].path},
                          {"type", tensor.export_types[index]},
                          {"bytes", tensor.export_bytes[index]}});
    }
    tensors.push_back({{"name", tensor.name},
                       {"shape", {tensor.out, tensor.in}},
                       {"source_type", tensor.source_type},
                       {"source_bytes", tensor.source_bytes},
                       {"steps", steps},
                       {"result_type", tensor.result_type},
                       {"result_bytes", tensor.result_bytes},
                       {"exports", exported}});
  }
  for (const PlannedExport& planned : plan.exports) {
    exports.push_back({{"path", planned.path},
                       {"format", planned.format},
                       {"bytes", planned.bytes},
                       {"notes", planned.notes}});
  }
  for (const PlannedPhase& phase : plan.phases) {
    phases.push_back(
        {{"phase", phase.name}, {"peak_bytes", phase.peak_bytes}, {"seconds", phase.seconds}});
  }
  return {{"recipe", plan.recipe},
          {"model",
           {{"format", plan.model_format},
            {"family", plan.config.family},
            {"layers", plan.config.layers},
            {"hidden", plan.config.hidden},
            {"ffn", plan.config.ffn}}},
          {"tensors", tensors},
          {"exports", exports},
          {"phases", phases},
          {"source_bytes", plan.source_bytes},
          {"result_bytes", plan.result_bytes},
          {"bits_per_weight", plan.bits_per_weight},
          {"peak_bytes", plan.peak_bytes},
          {"disk_bytes", plan.disk_bytes},
          {"seconds", plan.seconds},
          {"gemm_flops", plan.gemm_flops}};
}

std::string to_table(const Plan& plan, bool every_tensor) {
  std::ostringstream out;
  out << plan.config.family << ' ' << plan.model_format << ", " << plan.config.layers
      << " blocks\n\n";
  for (const Folded& row : fold(plan, every_tensor)) {
    print_tensor(out, row);
    for (std::size_t index = 0; index < row.first->export_types.size(); ++index) {
      out << "    " << plan.exports[index].path << ": " << row.first->export_types[index] << ' '
          << readable_bytes(row.first->export_bytes[index]) << '\n';
    }
  }
  out << "\nweights          " << readable_bytes(static_cast<std::uint64_t>(plan.source_bytes))
      << " -> " << readable_bytes(static_cast<std::uint64_t>(plan.result_bytes)) << ", "
      << formatted("%.3f%s", plan.bits_per_weight, "") << " bits a weight of the blocks\n";
  for (const PlannedExport& planned : plan.exports) {
    out << "export           " << planned.path << "  " << readable_bytes(planned.bytes) << '\n';
    for (const std::string& note : planned.notes) out << "                 " << note << '\n';
  }
  for (const PlannedPhase& phase : plan.phases) {
    out << "phase            " << phase.name << ": about "
        << readable_bytes(static_cast<std::uint64_t>(phase.peak_bytes)) << " at the peak";
    if (phase.seconds > 0) out << ", " << readable_seconds(phase.seconds);
    out << '\n';
  }
  out << "peak memory      " << readable_bytes(static_cast<std::uint64_t>(plan.peak_bytes))
      << "\ndisk             " << readable_bytes(plan.disk_bytes) << '\n';
  if (plan.gemm_flops > 0) {
    out << "time             about " << readable_seconds(plan.seconds) << " at "
        << formatted("%.0f %s", plan.gemm_flops / 1e9, "GFLOP/s") << '\n';
  }
  return out.str();
}

}  // namespace attar
