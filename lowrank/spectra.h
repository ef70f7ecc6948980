// What every layer of a model would lose by being cut, measured in one sweep over the calibration
// text before the first is cut.
#pragma once

#include <functional>
#include <vector>

#include "compress/calibrate/calibration_text.h"
#include "compress/core/model.h"
#include "compress/core/pass.h"
#include "lowrank/water_filling.h"

namespace attar {

struct LayerSpectrum {
  std::int64_t block = 0;
  Role role = Role::kQuery;
  std::int64_t out = 0;
  std::int64_t in = 0;
  std::vector<double> values;  // OutputPca::values, descending
  double energy = 0;           // |W X|^2, their sum
  // What the block's outputs lose, |change|^2 / |output|^2 a token on average, or what the
  // predictions lose, in nats, for each unit of `values` that is dropped here; empty when it was
  // not measured.
  std::optional<double> harm = std::nullopt;

  // The layer as water-filling sees it: relative errors count alike in all layers, or by the harm
  // that they do to the block's outputs.
  RankChoice choice() const;
};

struct SpectraOptions {
  bool measure_harm = true;
  // Harm is that of the predictions: that of the outputs times the KL for each unit of it, measured
  // with all probed layers of the block cut at once.
  bool predictions = true;
  double probe_keep = 0.8;  // harm is measured by cutting one layer at a time to this share
  std::int64_t probe_align = 32;
  std::int64_t probe_sequences = 4;  // of the calibration text
};

// Spectra of the layers that `wanted` names, from the model as it stands (its activations come
// through nothing that this pass changes). One forward pass with statistics, and for the harm one
// block forward a layer over the probe sequences.
std::vector<LayerSpectrum> measure_spectra(
    const Model& model, const CalibrationTokens& tokens, const SpectraOptions& options,
    const std::function<bool(std::int64_t block, Role role)>& wanted, const RunContext& context);

}  // namespace attar
