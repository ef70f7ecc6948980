#include "eval/task_files.h"

#include <algorithm>

#include "compress/core/errors.h"

namespace attar::eval {

namespace fs = std::filesystem;

fs::path evaluated_file(const TaskOptions& options, const std::string& name) {
  require<UsageError>(!options.path.empty(), "eval", "path is missing; give the folder that holds ",
                      name, " or the file itself");
  std::error_code ignored;
  if (!fs::is_directory(options.path, ignored)) {
    require<IoError>(fs::exists(options.path, ignored), options.path.string(),
                     "no such file or folder; give the folder that holds ", name,
                     " or the file itself");
    return options.path;
  }
  const fs::path file = options.path / name;
  require<IoError>(fs::exists(file, ignored), file.string(), "no such file; the task reads ", name,
                   " of the folder given as path");
  return file;
}

fs::path companion_file(const TaskOptions& options, const std::string& name) {
  std::error_code ignored;
  const bool folder = fs::is_directory(options.path, ignored);
  return (folder ? options.path : options.path.parent_path()) / name;
}

std::int64_t documents_to_make(const TaskOptions& options, std::int64_t available,
                               const std::string& task) {
  require<UsageError>(!options.limit || *options.limit > 0, task, "limit must be positive, got ",
                      options.limit.value_or(0));
  const std::int64_t count = std::min(options.limit.value_or(available), available);
  require<UsageError>(options.skip >= 0 && options.skip < count, task, "skip must be in [0, ",
                      count, "), got ", options.skip);
  return count;
}

void drop_skipped(const TaskOptions& options, std::vector<Document>& documents) {
  documents.erase(documents.begin(), documents.begin() + options.skip);
}

std::int64_t shots_of(const TaskOptions& options, std::int64_t own, const std::string& task) {
  const std::int64_t shots = options.shots.value_or(own);
  require<UsageError>(shots >= 0, task, "shots must not be negative, got ", shots);
  return shots;
}

void refuse_max_length(const TaskOptions& options, const std::string& task) {
  require<UsageError>(!options.max_length, task,
                      "max_length belongs to wikitext alone; leave it out");
}

}  // namespace attar::eval
