// --runtime: on which arithmetic a model answers; and how fast it does.
#pragma once

#include "compress/cli/command.h"

namespace attar::cli {

// "dense" (what every measurement means) or "quantized".
void add_runtime(CLI::App& command, std::string& runtime);

// --kv-bits: 32 (float32), 8 or 4.
void add_kv_bits(CLI::App& command, std::int64_t& kv_bits);

// engine(), with the language model of that runtime, keys and values in so many bits.
Engine engine_of(const std::string& runtime, std::int64_t kv_bits);

void add_bench(CLI::App& app);

}  // namespace attar::cli
