// Exit codes of the program: the one place that maps errors to numbers.
#pragma once

#include <functional>

namespace attar::cli {

enum ExitCode : int {
  kOk = 0,
  kBug = 1,
  kUsage = 2,
  kBadInput = 3,
  kDoesNotFit = 4,
  kNumericRefusal = 5,
  kGateNotMet = 6,
  kIo = 7,
  kStopped = 75,
};

// Runs `work`; what it throws becomes one line on stderr and a code.
int guarded(const std::function<void()>& work);

}  // namespace attar::cli
