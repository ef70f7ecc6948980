#include "compress/cli/terminal_progress.h"

#include <unistd.h>

#include <cstdio>

#include "compress/pipeline/plan.h"

namespace attar::cli {
namespace {

constexpr std::chrono::milliseconds kRedraw{100};
constexpr std::chrono::seconds kPlainLine{10};

}  // namespace

TerminalProgress::TerminalProgress() : terminal_(isatty(STDERR_FILENO) == 1) {}

TerminalProgress::~TerminalProgress() { end_line(); }

void TerminalProgress::end_line() {
  if (line_open_) std::fputc('\n', stderr);
  line_open_ = false;
}

void TerminalProgress::phase(std::string_view name, std::int64_t steps) {
  end_line();
  name_ = name;
  steps_ = steps;
  done_ = 0;
  started_ = drawn_ = Clock::now();
  if (terminal_) return draw("");
  std::fprintf(stderr, "%s: %lld steps\n", name_.c_str(), static_cast<long long>(steps));
}

void TerminalProgress::step(std::string_view what) {
  ++done_;
  if (done_ == steps_ || time_to_draw()) draw(what);
}

void TerminalProgress::detail(std::string_view what) {
  if (time_to_draw()) draw(what);
}

bool TerminalProgress::time_to_draw() const {
  const Clock::duration wait = terminal_ ? Clock::duration(kRedraw) : Clock::duration(kPlainLine);
  return Clock::now() - drawn_ >= wait;
}

void TerminalProgress::draw(std::string_view what) {
  drawn_ = Clock::now();
  std::string left;
  if (done_ > 0 && steps_ > done_) {
    const double spent = std::chrono::duration<double>(Clock::now() - started_).count();
    left =
        ", " +
        readable_seconds(spent / static_cast<double>(done_) * static_cast<double>(steps_ - done_)) +
        " left";
  }
  std::fprintf(stderr, "%s%s %lld/%lld %.*s%s%s", terminal_ ? "\r\x1b[K" : "", name_.c_str(),
               static_cast<long long>(done_), static_cast<long long>(steps_),
               static_cast<int>(what.size()), what.data(), left.c_str(), terminal_ ? "" : "\n");
  line_open_ = terminal_;
  std::fflush(stderr);
}

void TerminalProgress::note(std::string_view text) {
  end_line();
  if (text.empty()) return;
  std::fprintf(stderr, "%.*s\n", static_cast<int>(text.size()), text.data());
}

}  // namespace attar::cli
