#include "eval/groups.h"

#include <algorithm>
#include <map>

#include "eval/metrics.h"
#include "eval/python_text.h"

namespace attar::eval {
namespace {

constexpr std::string_view kGroupVersion = "2";  // of the harness's group definition

MetricResult group_metric(const MetricInfo& info, std::size_t position,
                          const std::vector<const TaskResult*>& members) {
  std::vector<double> values;
  std::vector<double> errors;
  std::vector<std::int64_t> sizes;
  for (const TaskResult* member : members) {
    const MetricResult& metric = member->metrics[position];
    values.push_back(metric.value);
    if (metric.error) errors.push_back(*metric.error);
    sizes.push_back(static_cast<std::int64_t>(member->samples.size()));
  }
  MetricResult result{info, weighted_mean(values, sizes), std::nullopt};
  if (errors.size() == values.size()) result.error = pooled_error(errors, sizes);
  return result;
}

// The group's name without that of the group around it: "mmlu_social_sciences" -> "social
// sciences".
std::string short_name(const std::string& group, const std::string& outer) {
  const bool nested = !outer.empty() && group.starts_with(outer + '_');
  return nested ? replace_all(group.substr(outer.size() + 1), "_", " ") : group;
}

std::string indented(std::size_t depth, const std::string& alias) {
  return depth == 0 ? alias : std::string(depth, ' ').append("- ").append(alias);
}

void add_task(const TaskResult& result, std::size_t depth, std::vector<ResultLine>& lines) {
  lines.push_back({result.task.name,
                   indented(depth, result.task.alias),
                   result.task.version,
                   false,
                   {},
                   {&result},
                   result.metrics});
}

// `members` share their first `depth` groups and have at least one more, `name`.
void add_group(const std::string& name, std::size_t depth,
               const std::vector<const TaskResult*>& members, std::vector<ResultLine>& lines) {
  ResultLine line;
  line.name = name;
  const std::string outer = depth == 0 ? "" : members[0]->task.groups[depth - 1];
  line.alias = indented(depth, short_name(name, outer));
  line.version = std::string(kGroupVersion);
  line.is_group = true;
  line.members = members;
  for (std::size_t i = 0; i < members[0]->metrics.size(); ++i) {
    line.metrics.push_back(group_metric(members[0]->metrics[i].info, i, members));
  }
  std::map<std::string, std::vector<const TaskResult*>> children;
  for (const TaskResult* member : members) {
    const auto& groups = member->task.groups;
    children[groups.size() > depth + 1 ? groups[depth + 1] : member->task.name].push_back(member);
  }
  for (const auto& child : children) line.children.push_back(child.first);
  lines.push_back(std::move(line));
  for (const auto& [child, below] : children) {
    if (below[0]->task.groups.size() > depth + 1) {
      add_group(child, depth + 1, below, lines);
    } else {
      add_task(*below[0], depth + 1, lines);
    }
  }
}

}  // namespace

std::vector<ResultLine> result_lines(const std::vector<TaskResult>& results) {
  std::vector<ResultLine> lines;
  std::vector<std::string> seen;
  for (const TaskResult& result : results) {
    if (result.task.groups.empty()) {
      add_task(result, 0, lines);
      continue;
    }
    const std::string& group = result.task.groups[0];
    if (std::find(seen.begin(), seen.end(), group) != seen.end()) continue;
    seen.push_back(group);
    std::vector<const TaskResult*> members;
    for (const TaskResult& other : results) {
      if (!other.task.groups.empty() && other.task.groups[0] == group) members.push_back(&other);
    }
    add_group(group, 0, members, lines);
  }
  return lines;
}

}  // namespace attar::eval
