// Ctrl-C inside of long work: Python only notes a signal, so the work asks for it at every step of
// its progress, stops at the next safe point, and the KeyboardInterrupt comes out.
#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <optional>

#include "compress/core/errors.h"
#include "compress/core/pass.h"
#include "compress/pipeline/progress.h"

namespace attar::bindings {

class Interruption final : public Progress {
 public:
  void phase(std::string_view, std::int64_t) override { look(); }
  void step(std::string_view) override { look(); }
  void note(std::string_view) override { look(); }
  void detail(std::string_view) override { look(); }

  const std::atomic<bool>* stop() const { return &stop_; }
  RunContext context() const {
    RunContext context;
    context.stop = &stop_;
    return context;
  }

  // Runs the handlers of signals that came in; what one of them throws is kept and asks for a stop.
  void look() {
    if (stop_) return;
    const pybind11::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() == 0) return;
    error_.emplace();  // takes the Python error
    stop_ = true;
  }

  // Runs `work(interruption)`; a stop that a Python signal handler asked for becomes its error.
  template <class Work>
  static auto guard(const Work& work) {
    Interruption interruption;
    try {
      return work(interruption);
    } catch (const Stopped&) {
      if (interruption.error_) throw *interruption.error_;
      throw;
    }
  }

 private:
  std::atomic<bool> stop_{false};
  std::optional<pybind11::error_already_set> error_;
};

}  // namespace attar::bindings
