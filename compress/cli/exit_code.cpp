#include "compress/cli/exit_code.h"

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

#include "compress/core/errors.h"
#include "compress/io/json_builder.h"

namespace attar::cli {
namespace {

int tell(int code, std::string what) {
  // One message is one line of UTF-8, whatever a file's names held.
  for (char& c : what) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  for (std::size_t at; (at = io::find_invalid_utf8(what)) != what.npos;) what[at] = '?';
  std::fprintf(stderr, "attar: %s\n", what.c_str());
  return code;
}

// Of std::bad_alloc, of LibTorch, and of either with a note behind it.
bool is_out_of_memory(std::string_view what) {
  return what.find("std::bad_alloc") != what.npos ||
         what.find("DefaultCPUAllocator: can't allocate") != what.npos;
}

int tell_bug(const std::string& what) {
  return tell(kBug, "this is a bug in attar, please report it with the command: " + what);
}

}  // namespace

int guarded(const std::function<void()>& work) {
  try {
    work();
    return kOk;
  } catch (const UsageError& error) {
    return tell(kUsage, error.what());
  } catch (const BadInput& error) {
    return tell(kBadInput, error.what());
  } catch (const DoesNotFit& error) {
    return tell(kDoesNotFit, error.what());
  } catch (const NumericRefusal& error) {
    return tell(kNumericRefusal, error.what());
  } catch (const GateNotMet& error) {
    return tell(kGateNotMet, error.what());
  } catch (const IoError& error) {
    return tell(kIo, error.what());
  } catch (const Stopped& error) {
    return tell(kStopped, error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    return tell(kIo, std::string("[file system] ") + error.what());
  } catch (const std::exception& error) {
    if (is_out_of_memory(error.what())) {
      return tell(kDoesNotFit,
                  "[memory] not enough memory; lower calibration.sequences or "
                  "calibration.batch, or use a machine with more");
    }
    return tell_bug(error.what());
  } catch (...) {
    return tell_bug("an exception of unknown type");
  }
}

}  // namespace attar::cli
