// The result of a run appears under its name only when it is complete.
#pragma once

#include <filesystem>
#include <string_view>

namespace attar::io {

// Whether a relative path, joined to a folder, names something inside of it.
bool stays_inside(const std::filesystem::path& relative);

enum class ExistingOutput { refuse, replace };

// While a run works, everything is in OUT.partial-<id>/ beside OUT; commit() renames it. A run that
// was killed leaves the work folder; the same out and id find it again (resumed()). A lock on the
// work folder keeps a second process out; it ends with the process.
class OutputFolder {
 public:
  // Makes or takes over the work folder, with missing parents.
  //
  // Throws UsageError when OUT exists, is no folder, or is not empty and `existing` is refuse, and
  // for an id with other characters than letters, digits, '.', '_', '-'; IoError when another
  // process works there or the folder cannot be made.
  OutputFolder(const std::filesystem::path& out, std::string_view id,
               ExistingOutput existing = ExistingOutput::refuse);
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;

  // Leaves the work folder for a later run, unless it is empty.
  ~OutputFolder();

  // Where a run of that id works.
  static std::filesystem::path work_of(const std::filesystem::path& out, std::string_view id);

  const std::filesystem::path& work() const { return work_; }
  const std::filesystem::path& out() const { return out_; }
  bool resumed() const { return resumed_; }

  // Syncs every file and folder of the work folder and renames it to OUT; a former OUT is swapped
  // out in one step and removed. Afterwards work() == out(). Throws IoError.
  void commit();

  // Removes the work folder with all that is in it (after bad input: nothing stays behind).
  void discard();

 private:
  void lock();

  std::filesystem::path out_;
  std::filesystem::path work_;
  ExistingOutput existing_;
  bool resumed_ = false;
  bool open_ = false;  // the work folder is ours
  int descriptor_ = -1;
};

}  // namespace attar::io
