// Where the files of a task lie, and which of its documents are asked for.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/task.h"

namespace attar::eval {

// options.path itself if it is a file, else `name` in that folder. Throws UsageError for an empty
// path, IoError if there is no such file.
std::filesystem::path evaluated_file(const TaskOptions& options, const std::string& name);

// `name` in the folder, or beside the evaluated file; it need not exist.
std::filesystem::path companion_file(const TaskOptions& options, const std::string& name);

// How many of `available` documents to make (skip's among them: few-shot draws go through all).
// Throws UsageError for a negative skip or limit, and if nothing would be left.
std::int64_t documents_to_make(const TaskOptions& options, std::int64_t available,
                               const std::string& task);

// Takes the first options.skip documents out.
void drop_skipped(const TaskOptions& options, std::vector<Document>& documents);

// The number of shots, or the task's own. Throws UsageError for a negative number.
std::int64_t shots_of(const TaskOptions& options, std::int64_t own, const std::string& task);

// Throws UsageError if max_length was given: only rolling tasks have windows.
void refuse_max_length(const TaskOptions& options, const std::string& task);

}  // namespace attar::eval
