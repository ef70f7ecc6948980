// The result of a run appears under its name only when it is complete.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace attar::io {

// Whether a relative path, joined to a folder, names something inside of it.
bool stays_inside(const std::filesystem::path& relative);

// While a run works, everything is in OUT.partial-<id>/ beside OUT; commit() renames it. A run that
// was killed leaves the work folder; the same out and id find it again (resumed()). A lock on the
// work folder keeps a second process out; it ends with the process.
class OutputFolder {
 public:
  // Makes or takes over the work folder, with missing parents. An OUT that is there already gives
  // way if it is empty or holds a file of one of the names `replaceable` ("manifest.json" of a run,
  // "config.json" of a model): nobody means to lose another folder.
  //
  // Throws UsageError when OUT is there and does not give way, and for an id with other characters
  // than letters, digits, '.', '_', '-'; IoError when another process works there or the folder
  // cannot be made.
  OutputFolder(const std::filesystem::path& out, std::string_view id,
               std::vector<std::string> replaceable = {});
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
  std::vector<std::string> replaceable_;
  bool resumed_ = false;
  bool open_ = false;  // the work folder is ours
  int descriptor_ = -1;
};

}  // namespace attar::io
