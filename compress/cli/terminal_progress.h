// Progress on stderr: one line that moves, with the time left, on a terminal; plain lines
// elsewhere.
#pragma once

#include <chrono>
#include <string>

#include "compress/pipeline/progress.h"

namespace attar::cli {

class TerminalProgress final : public Progress {
 public:
  TerminalProgress();
  ~TerminalProgress() override;

  void phase(std::string_view name, std::int64_t steps) override;
  void step(std::string_view what) override;
  void detail(std::string_view what) override;
  void note(std::string_view text) override;

 private:
  using Clock = std::chrono::steady_clock;
  bool time_to_draw() const;
  void draw(std::string_view what);
  void end_line();

  bool terminal_;
  bool line_open_ = false;
  std::string name_;
  std::int64_t steps_ = 0, done_ = 0;
  Clock::time_point started_, drawn_;
};

}  // namespace attar::cli
