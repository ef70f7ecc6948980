// How fast a model answers, beside what the memory of the machine would allow.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "compress/runtime/transformer.h"

namespace attar {

struct SpeedOptions {
  std::int64_t prompt = 512;  // tokens read at once
  std::int64_t tokens = 64;   // then one after another
  std::int64_t rounds = 3;    // of probe, prompt and tokens in turns, after one that is not counted
};

// Medians over the rounds.
struct Speed {
  double prefill = 0;  // tokens a second: the prompt, and the logits after its last token
  double decode = 0;   // tokens a second, greedily, from the second token of a sequence on
  // What all threads read of as many bytes as one token streams by, in bytes a second.
  double bandwidth = 0;
  std::int64_t token_bytes = 0;  // of weights, a token
  // Share of the bandwidth that decoding reaches: decode * token_bytes / bandwidth.
  double decode_share() const { return decode * static_cast<double>(token_bytes) / bandwidth; }
};

// `before_round` is called before each round: to look for a stop, say. Throws UsageError when the
// model holds fewer positions than asked for.
Speed measure_speed(const Transformer& model, const SpeedOptions& options,
                    const std::function<void()>& before_round = {});

// The seconds that one turn takes, for programs that take turns with others.
double prefill_seconds(const Transformer& model, std::int64_t prompt);
double decode_seconds(const Transformer& model, std::int64_t tokens);

// Bytes a second that all threads read of memory that they walk through again and again.
class BandwidthProbe {
 public:
  explicit BandwidthProbe(std::int64_t bytes);
  double bytes_per_second();

 private:
  at::Tensor memory_;
};

}  // namespace attar
