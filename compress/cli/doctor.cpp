#include <sys/sysinfo.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "compress/cli/command.h"
#include "compress/core/numerics.h"
#include "compress/io/disk.h"
#include "compress/kernels/variants.h"
#include "compress/pipeline/plan.h"
#include "compress/pipeline/plan_checks.h"

namespace attar::cli {
namespace {

using nlohmann::ordered_json;

std::uint64_t memory_bytes() {
  struct sysinfo info {};
  return sysinfo(&info) == 0 ? std::uint64_t{info.totalram} * info.mem_unit : 0;
}

ordered_json folder(const char* what, const std::filesystem::path& path) {
  return {{"what", what},
          {"path", path.string()},
          {"writable", access(path.c_str(), W_OK | X_OK) == 0},
          {"free_bytes", io::free_bytes(path)}};
}

void doctor(const Common& common) {
  use_threads(common);
  const Numerics& numerics = set_up_numerics();
  ordered_json found = {{"attar", ATTAR_VERSION},
                        {"processors", std::thread::hardware_concurrency()},
                        {"threads", threads()},
                        {"instructions", kernels::active_isa()},
                        {"blas_mode", numerics.blas_mode.empty() ? "default" : numerics.blas_mode},
                        {"rows_independent", numerics.rows_independent},
                        {"threads_independent", numerics.threads_independent},
                        {"gemm_gflops", std::round(measure_gemm_flops() / 1e8) / 10},
                        {"memory_bytes", memory_bytes()},
                        {"resident_bytes", io::current_rss_bytes()}};
  found["folders"] = {folder("working", std::filesystem::current_path()),
                      folder("temporary", std::filesystem::temp_directory_path())};
  if (common.json()) return print_json(found);
  std::string text;
  for (const auto& [key, value] : found.items()) {
    if (key == "folders") continue;
    const std::string shown = key.ends_with("_bytes") ? readable_bytes(value.get<std::uint64_t>())
                              : value.is_string()     ? value.get<std::string>()
                                                      : value.dump();
    text += key + std::string(22 - std::min<std::size_t>(21, key.size()), ' ') + shown + "\n";
  }
  for (const auto& entry : found["folders"]) {
    text += entry.at("what").get<std::string>() + " folder " + entry.at("path").get<std::string>() +
            ": " + (entry.at("writable").get<bool>() ? "writable" : "not writable") + ", " +
            readable_bytes(entry.at("free_bytes").get<std::uint64_t>()) + " free\n";
  }
  if (!numerics.rows_independent || !numerics.threads_independent) {
    text +=
        "Products on this machine depend on batch or threads: the same command gives the same "
        "bytes only with the same --threads and --batch.\n";
  }
  print(text);
}

}  // namespace

void add_doctor(CLI::App& app) {
  auto* command = app.add_subcommand("doctor", "Say what this machine gives attar to work with");
  const auto common = std::make_shared<Common>();
  add_common(*command, *common);
  command->callback([common] { doctor(*common); });
}

}  // namespace attar::cli
