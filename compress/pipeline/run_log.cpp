#include "compress/pipeline/run_log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <string>

#include "compress/core/errors.h"

namespace attar {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const char* doing) {
  throw IoError(message(path.string(), "cannot ", doing, ": ", std::strerror(errno),
                        "; give an output folder where this user may write and space is left"));
}

// Where the last whole line ends.
off_t end_of_lines(int descriptor, off_t size) {
  std::array<char, 4096> piece;
  for (off_t end = size; end > 0;) {
    const auto count = std::min<off_t>(end, static_cast<off_t>(piece.size()));
    if (pread(descriptor, piece.data(), static_cast<std::size_t>(count), end - count) != count) {
      return size;
    }
    for (off_t at = count; at > 0; --at) {
      if (piece[static_cast<std::size_t>(at - 1)] == '\n') return end - count + at;
    }
    end -= count;
  }
  return 0;
}

}  // namespace

std::string utc_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  const auto milliseconds = std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
  const std::time_t seconds = milliseconds / 1000;
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::array<char, 32> text;
  const std::size_t length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  const std::string fraction = std::to_string(1000 + milliseconds % 1000).substr(1);
  return std::string(text.data(), length) + "." + fraction + "Z";
}

RunLog::RunLog(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (descriptor_ < 0) fail(path_, "open the log");
  struct stat status {};
  if (fstat(descriptor_, &status) == 0 && status.st_size > 0) {
    const off_t end = end_of_lines(descriptor_, status.st_size);
    if (end != status.st_size && ftruncate(descriptor_, end) != 0) fail(path_, "mend the log");
  }
}

RunLog::~RunLog() {
  if (descriptor_ >= 0) close(descriptor_);
}

double RunLog::elapsed_seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
}

void RunLog::write(std::string_view event, nlohmann::json fields) {
  nlohmann::ordered_json line = {{"time", utc_now()},
                                 {"elapsed", std::round(elapsed_seconds() * 1000) / 1000},
                                 {"event", event}};
  line.update(nlohmann::ordered_json(fields));
  const std::string text =
      line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t count = ::write(descriptor_, rest.data(), rest.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(path_, "write the log");
    rest.remove_prefix(static_cast<std::size_t>(count));
  }
}

}  // namespace attar
