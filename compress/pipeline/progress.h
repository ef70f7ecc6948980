// What a run tells while it works. The pipeline says; who listens decides how to show it.
#pragma once

#include <cstdint>
#include <string_view>

namespace attar {

class Progress {
 public:
  virtual ~Progress() = default;
  // A part of the run begins: "quantize", with so many steps (0: unknown).
  virtual void phase(std::string_view name, std::int64_t steps) = 0;
  // One more step of the phase is done.
  virtual void step(std::string_view what) = 0;
  // Where the step that is under way stands: a layer, a training step.
  virtual void detail(std::string_view /*what*/) {}
  // A sentence that the user should see; an empty one only ends a line that moves.
  virtual void note(std::string_view text) = 0;
};

class NoProgress final : public Progress {
 public:
  void phase(std::string_view, std::int64_t) override {}
  void step(std::string_view) override {}
  void note(std::string_view) override {}
};

}  // namespace attar
