#include "compress/cli/command.h"

#include <cstdio>
#include <thread>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"

namespace attar::cli {

void add_common(CLI::App& command, Common& common) {
  command.add_option("-o,--output", common.output, "How to print results")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  command.add_option("--threads", common.threads, "Threads; results are the same for any number")
      ->check(CLI::Range(0, 4096));
}

void use_threads(const Common& common, int recipe_threads) {
  int count = common.threads > 0 ? common.threads : recipe_threads;
  if (count == 0) count = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  set_threads(count);
}

void reading(const std::filesystem::path& file, const std::function<void()>& read) {
  try {
    read();
  } catch (const nlohmann::json::exception& error) {
    throw BadInput(message(file.string(), "is not as attar wrote it (", error.what(),
                           "); run the recipe again with --replace"));
  }
}

void print(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  require<IoError>(written && std::fflush(stdout) == 0, "stdout",
                   "cannot write the result; is the pipe closed or the disk full?");
}

void print_json(const nlohmann::ordered_json& json) {
  print(json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
}

}  // namespace attar::cli
