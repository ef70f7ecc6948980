#include "eval/table.h"

#include <cstdio>

#include "compress/core/errors.h"
#include "eval/comparison.h"
#include "eval/groups.h"
#include "eval/python_text.h"

namespace attar::eval {
namespace {

using Row = std::vector<std::string>;

std::string fixed(double value, const char* format = "%.4f") {
  char text[64];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

Row metric_cells(const ResultLine& line, const MetricResult& metric, bool first) {
  const std::string shots = line.is_group ? "" : std::to_string(line.members[0]->task.shots);
  return {first ? line.alias : "",
          first ? line.version : "",
          metric.info.filter,
          shots,
          metric.info.name,
          metric.info.higher_is_better ? "\u2191" : "\u2193",
          fixed(metric.value),
          "\u00b1",
          metric.error ? fixed(*metric.error) : "N/A"};
}

void add_comparison(const MetricComparison& comparison, Row& row) {
  const Estimate& difference = comparison.difference;
  row.push_back(fixed(difference.value, "%+.4f"));
  row.emplace_back("[");
  row.back().append(fixed(difference.low, "%+.4f")).append(", ");
  row.back().append(fixed(difference.high, "%+.4f")).append("]");
  row.emplace_back();
  if (!comparison.flips) return;
  row.back().append("-").append(std::to_string(comparison.flips->lost));
  row.back().append(" +").append(std::to_string(comparison.flips->gained));
}

std::string padded(const std::string& cell, std::size_t width, bool right) {
  const auto length = static_cast<std::size_t>(count_characters(cell));
  const std::string blanks(width > length ? width - length : 0, ' ');
  return right ? blanks + cell : cell + blanks;
}

}  // namespace

std::string markdown_table(const std::vector<Row>& rows, const std::vector<bool>& right) {
  std::vector<std::size_t> widths(right.size(), 3);
  for (const Row& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], static_cast<std::size_t>(count_characters(row[i])));
    }
  }
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    text += '|';
    for (std::size_t i = 0; i < right.size(); ++i) {
      text += padded(i < rows[r].size() ? rows[r][i] : "", widths[i], right[i]) + '|';
    }
    text += '\n';
    if (r > 0) continue;
    text += '|';
    for (std::size_t i = 0; i < right.size(); ++i) {
      text += std::string(widths[i] - 1, '-') + (right[i] ? ":|" : "-|");
    }
    text += '\n';
  }
  return text;
}

std::string result_table(const std::vector<TaskResult>& results,
                         const std::vector<TaskResult>& teachers) {
  const bool compared = !teachers.empty();
  require<UsageError>(!compared || teachers.size() == results.size(), "table",
                      "teacher and model must have the same tasks, got ", teachers.size(), " and ",
                      results.size());
  std::vector<Row> rows = {
      {"Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"}};
  std::vector<bool> right = {false, true, false, true, false, false, true, false, true};
  if (compared) {
    rows[0].insert(rows[0].end(), {"\u0394 teacher", "95 %", "flips"});
    right.insert(right.end(), {true, true, true});
  }
  for (const ResultLine& line : result_lines(results)) {
    std::vector<MetricComparison> comparisons;
    if (compared) comparisons = compare_line(line, results, teachers);
    bool first = true;
    for (const MetricResult& metric : line.metrics) {
      rows.push_back(metric_cells(line, metric, first));
      first = false;
      for (const MetricComparison& comparison : comparisons) {
        if (comparison.key == metric.info.key()) add_comparison(comparison, rows.back());
      }
    }
  }
  return markdown_table(rows, right);
}

}  // namespace attar::eval
