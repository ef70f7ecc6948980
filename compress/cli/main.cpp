#include <unistd.h>

#include <array>
#include <string_view>

#include "compress/cli/command.h"
#include "compress/cli/exit_code.h"
#include "compress/cli/runtime_option.h"
#include "compress/core/allocator.h"
#include "compress/core/errors.h"
#include "compress/core/numerics.h"

namespace attar::cli {
namespace {

void declare(CLI::App& app) {
  app.set_version_flag("--version", "attar " ATTAR_VERSION);
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "Help of all subcommands");
  add_inspect(app);
  add_plan(app);
  add_run(app);
  add_evaluate(app);
  add_compare(app);
  add_generate(app);
  add_bench(app);
  add_export(app);
  add_importance(app);
  add_verify(app);
  add_report(app);
  add_quantize(app);
  add_short_forms(app);
  add_recipes(app);
  add_passes(app);
  add_doctor(app);
}

// Threads that wait for one another spin for milliseconds by default, which hurts on a machine that
// is busy with something else: rounding SmolLM2 took 82 s on two threads there and 6 s on one. How
// much a short spin mends was not measured. libgomp reads its environment when it is loaded, so
// start once more; and before LibTorch registers its operators, which takes longer than many a
// command. So early there is no heap and no getenv.
void spin_briefly(int /*argc*/, char** argv, char** environment) {
  static char spins[] = "GOMP_SPINCOUNT=10000";
  static std::array<char*, 4096> extended;
  std::size_t count = 0;
  for (; environment[count] != nullptr; ++count) {
    const std::string_view entry = environment[count];
    if (entry.starts_with("OMP_WAIT_POLICY=") || entry.starts_with("GOMP_SPINCOUNT=")) return;
    if (count + 2 == extended.size()) return;
    extended[count] = environment[count];
  }
  extended[count] = spins;
  execve("/proc/self/exe", argv, extended.data());  // returns only when it failed: go on as we are
}

// Called by the loader before any library's own initialisation.
[[gnu::section(".preinit_array"), gnu::used]] void (*const before_libraries)(int, char**,
                                                                             char**) = spin_briefly;

// Help and version are no errors; everything else that CLI11 finds is the caller's.
bool parse(CLI::App& app, int argc, char** argv) {
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::Success& success) {
    app.exit(success);
    return false;
  } catch (const CLI::ParseError& error) {
    throw UsageError(message("command line", error.what(),
                             "; 'attar --help' lists subcommands, "
                             "'attar SUBCOMMAND --help' its options"));
  }
}

}  // namespace
}  // namespace attar::cli

int main(int argc, char** argv) {
  return attar::cli::guarded([&] {
    attar::give_large_blocks_back();
    attar::set_up_numerics();
    CLI::App app("attar boils a language model down: quantize, measure, export.", "attar");
    attar::cli::declare(app);
    attar::cli::parse(app, argc, argv);
  });
}
