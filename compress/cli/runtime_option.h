// --runtime: on which arithmetic a model answers; and how fast it does.
#pragma once

#include "compress/cli/command.h"

namespace attar::cli {

// "dense" (what every measurement means) or "quantized".
void add_runtime(CLI::App& command, std::string& runtime);

// engine(), with the language model of that runtime.
const Engine& engine_of(const std::string& runtime);

void add_bench(CLI::App& app);

}  // namespace attar::cli
