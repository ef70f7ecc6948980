// run.jsonl: what happened, one JSON object a line, from the first second. Every line is written
// with one system call; a line that a crash tore is cut off by the run that goes on.
#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

namespace attar {

class RunLog {
 public:
  // Appends to an existing log. Throws IoError.
  explicit RunLog(std::filesystem::path path);
  RunLog(const RunLog&) = delete;
  RunLog& operator=(const RunLog&) = delete;
  ~RunLog();

  // Adds "time" (UTC), "elapsed" (seconds of this process' share of the run) and "event".
  void write(std::string_view event, nlohmann::json fields = nlohmann::json::object());

  double elapsed_seconds() const;

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

// "2026-01-31T12:00:00.123Z", now.
std::string utc_now();

}  // namespace attar
