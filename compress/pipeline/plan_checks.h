// Parts of make_plan (plan.h) that stand on their own: texts, output folder, phases.
#pragma once

#include "compress/pipeline/plan.h"

namespace attar {

// Calibration and evaluation texts: there, long enough, tasks readable. Calibration texts up to 16
// MB are tokenized; longer ones are judged by their bytes. Teachers: there, with the student's
// tokens unless some of these go (`rows_go`). Returns Plan::measured.
std::vector<std::int64_t> check_texts(const Recipe& recipe, const ModelConfig& config,
                                      bool rows_go);

// Whether `out` can be made and its disk has room.
void check_output(const std::filesystem::path& out, std::uint64_t needed_bytes);

// Throws UsageError where replacing `out` would remove `input`, which it is or holds.
void keep_out_of(const std::filesystem::path& out, const std::filesystem::path& input);

// Floating-point operations a second of float32 products of a typical shape, measured for about
// half a second.
double measure_gemm_flops();

// Peak memory and time of each phase of the run; `plan` has its config, tensors and speed.
std::vector<PlannedPhase> plan_phases(const Recipe& recipe,
                                      const std::vector<std::unique_ptr<Pass>>& passes,
                                      const Plan& plan);

}  // namespace attar
