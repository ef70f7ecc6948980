// Every error that attar throws on purpose. Each derives from the standard exception that Python
// maps by itself (std::invalid_argument -> ValueError, std::runtime_error -> RuntimeError), and the
// command line gives each its exit code.
//
// A message reads "[where] what is wrong, got value; what to do".
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace attar {

// The caller's words are off: an unknown option, key, pass or value out of range. Exit code 2.
struct UsageError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// A file's content is broken, lies, or is of a kind that attar does not read. Exit code 3.
struct BadInput : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// The plan cannot hold: a width that a format cannot store, memory or disk too small. Exit code 4.
struct DoesNotFit : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Non-finite numbers, or a numeric fallback that the policy forbids. Exit code 5.
struct NumericRefusal : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A quality gate of the recipe does not hold. Exit code 6.
struct GateNotMet : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The operating system refused: no permission, disk full, file vanished. Exit code 7.
struct IoError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A signal asked for a stop; everything up to the last safe point is on disk. Exit code 75.
struct Stopped : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// "[where] " followed by all parts, streamed.
template <class... Parts>
std::string message(std::string_view where, const Parts&... parts) {
  std::ostringstream out;
  out << '[' << where << "] ";
  (out << ... << parts);
  return out.str();
}

// Throws Error with message(where, parts...) unless `holds`.
template <class Error = BadInput, class... Parts>
void require(bool holds, std::string_view where, const Parts&... parts) {
  if (!holds) throw Error(message(where, parts...));
}

}  // namespace attar
