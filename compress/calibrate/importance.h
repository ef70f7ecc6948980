// The importance matrix of a model: for every layer the mean of x^2 of each input column over a
// calibration text, by the names of llama.cpp.
#pragma once

#include "compress/calibrate/calibration_text.h"
#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "compress/io/imatrix.h"

namespace attar {

// `batch` sequences a forward; never changes a result. The embedding has no inputs and a head of
// its own is left out, as llama.cpp does. Throws NumericRefusal, naming the layer, where an input
// is a NaN or an infinity.
io::ImportanceMatrix importance_matrix(const Model& model, const CalibrationTokens& tokens,
                                       std::int64_t batch, const RunContext& context);

}  // namespace attar
