// Passes that work on the whole model at once: training, distillation, pruning of depth, hidden
// size or vocabulary.
#pragma once

#include <filesystem>

#include "compress/calibrate/calibration_text.h"
#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "compress/tokenize/tokenizer.h"

namespace attar {

struct ModelWork {
  const Model& input;                    // as the passes before left it
  Model& output;                         // on top of it: the pass writes here what it changes
  const Model& original;                 // what the run started from: the teacher
  const CalibrationTokens* calibration;  // null unless needs().calibration
  const Tokenizer* tokenizer;            // null unless needs().tokenizer
  // For state that an interrupted run goes on from (atomic files); exists, is empty the first time
  // and is removed when the pass is done. Blocks written to `output` before an interruption are
  // written again.
  std::filesystem::path state;
  PassReport& report;
  const RunContext& context;
};

class ModelPass : public Pass {
 public:
  // The same input gives the same bits, interrupted and gone on with or not.
  virtual void run(ModelWork& work) const = 0;
};

}  // namespace attar
