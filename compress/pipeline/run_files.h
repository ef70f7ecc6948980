// The files that a run leaves beside its exports, and the model card inside of them.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "compress/pipeline/run.h"

namespace attar {

// results.json: lm-evaluation-harness's schema, and under "attar" what that has no place for.
nlohmann::ordered_json results_of(const RunRecord& record);

// manifest.json: hashes of inputs and of every file in `work`, resolved recipe, versions, numerics,
// timings, every numeric fallback.
nlohmann::ordered_json manifest_of(const RunRecord& record, const std::filesystem::path& work);

// One table: sizes, texts, tasks, before and after.
std::string summary_table(const RunRecord& record);

// README.md of an export folder: the same bytes for the same weights and recipe.
std::string model_card(const RunRecord& record, const ExportStep& step);

// report.html, without anything from outside of the file.
std::string report_html(const RunRecord& record);

// The recipe as others may read it: paths cut to their last part, nothing about this machine.
std::string portable_recipe(const RunRecord& record);

}  // namespace attar
