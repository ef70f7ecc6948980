// Calibration text -> token windows.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "compress/core/fields.h"
#include "compress/tokenize/tokenizer.h"

namespace attar {

// The `calibration:` part of a recipe.
struct CalibrationConfig {
  std::vector<std::string> text;  // files, read one after the other
  std::int64_t sequences = 128;
  std::int64_t length = 512;  // tokens a sequence
  std::string store;          // HDF5 file of statistics to keep and reuse; empty: none
  std::int64_t batch = 0;     // see sequences_a_forward
  std::string token_weights = "fisher";
  std::int64_t weight_windows = 16;

  std::int64_t sequences_a_forward() const {
    return batch > 0 ? batch : std::max<std::int64_t>(1, 1024 / length);
  }

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = CalibrationConfig;
    visit("text", &C::text, Any{},
          "Text file, or several: UTF-8, or *.jsonl with {\"text\"} or {\"prompt\", "
          "\"completion\"} a "
          "line.");
    visit("sequences", &C::sequences, Range<std::int64_t>{1, 1 << 20}, "Windows of the text.");
    visit("length", &C::length, Range<std::int64_t>{8, 1 << 17}, "Tokens a window.");
    visit("store", &C::store, Any{},
          "HDF5 file that keeps the statistics for later runs on the same model and text.");
    visit("batch", &C::batch, Range<std::int64_t>{0, 1 << 10},
          "Sequences a forward; 0: as many as hold 1024 tokens. Changes speed and memory, never a "
          "result.");
    visit(
        "token_weights", &C::token_weights, OneOf{{"uniform", "fisher"}},
        "How much tokens count in statistics and errors: all alike, or by how much the model's "
        "prediction minds an error at their place (its gradients; GuidedQuant, arXiv:2505.07004).");
    visit("weight_windows", &C::weight_windows, Range<std::int64_t>{1, 1 << 20},
          "Windows whose gradients the weights of fisher are the mean of.");
  }
};

struct CalibrationTokens {
  at::Tensor ids;      // [N, T] int64
  std::string sha256;  // of shape and ids
  // [layers, sites, T] float32, what a token counts at its place (train/token_weights.h);
  // undefined: all alike.
  at::Tensor weights = {};
  std::int64_t batch = 4;  // sequences a forward; never changes a result
};

// Tokenizes the files (texts without BOS, documents of a *.jsonl as a model is trained on them),
// cuts the stream into windows of `length` tokens that do not overlap and takes `sequences` of
// them, chosen by the seed and kept in the order of the text. Throws BadInput for a text that is
// empty, not to be read, or too short (saying how many windows it has).
CalibrationTokens read_calibration(const CalibrationConfig& config, const Tokenizer& tokenizer,
                                   std::uint64_t seed);

// Wraps ids that are there already.
CalibrationTokens calibration_of(at::Tensor ids);

}  // namespace attar
