#include "compress/runtime/speed.h"

#include <algorithm>
#include <chrono>

#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/core/streamed_memory.h"

namespace attar {
namespace {

template <class Work>
double seconds_of(const Work& work) {
  const auto since = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

// Token ids that any vocabulary has, never twice the same in a row.
std::vector<TokenId> some_tokens(std::int64_t count, std::int64_t vocabulary) {
  std::vector<TokenId> ids(static_cast<std::size_t>(count));
  std::uint32_t state = 7;
  for (TokenId& id : ids) {
    state = state * 1664525u + 1013904223u;
    id = static_cast<TokenId>((state >> 8) % static_cast<std::uint64_t>(vocabulary));
  }
  return ids;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Eight sums, so that no addition waits for the one before.
std::uint64_t sum_words(const std::uint64_t* words, std::int64_t count) {
  std::uint64_t sums[8] = {};
  for (std::int64_t i = 0; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; ++j) sums[j] += words[i + j];
  }
  std::uint64_t sum = 0;
  for (const std::uint64_t one : sums) sum += one;
  return sum;
}

}  // namespace

double prefill_seconds(const Transformer& model, std::int64_t prompt) {
  const auto ids = some_tokens(prompt, model.config().vocabulary);
  return seconds_of([&] {
    Transformer::State state = model.start();
    const at::Tensor hidden = model.extend(state, ids);
    model.head().statistics(hidden.narrow(0, prompt - 1, 1), {});
  });
}

double decode_seconds(const Transformer& model, std::int64_t tokens) {
  const auto first = some_tokens(1, model.config().vocabulary);
  Transformer::State state = model.start();
  at::Tensor hidden = model.extend(state, first);
  return seconds_of([&] {
    for (std::int64_t i = 0; i < tokens; ++i) {
      const auto next = static_cast<TokenId>(model.head().statistics(hidden, {}).front().argmax);
      hidden = model.extend(state, std::span(&next, 1));
    }
  });
}

BandwidthProbe::BandwidthProbe(std::int64_t bytes)
    : memory_(streamed_memory(std::max<std::int64_t>(bytes, std::int64_t{1} << 20))) {
  memory_.fill_(1);
}

double BandwidthProbe::bytes_per_second() {
  const std::int64_t words = memory_.numel() / 8, walks = 4;
  const auto* at = reinterpret_cast<const std::uint64_t*>(memory_.const_data_ptr());
  const int count = threads();
  std::uint64_t sum = 0;
  const double seconds = seconds_of([&] {
#pragma omp parallel for schedule(static) num_threads(count) reduction(+ : sum)
    for (int part = 0; part < count; ++part) {
      const std::int64_t begin = part * words / count, end = (part + 1) * words / count;
      for (std::int64_t walk = 0; walk < walks; ++walk) sum += sum_words(at + begin, end - begin);
    }
  });
  require<NumericRefusal>(sum != 0, "bandwidth", "memory does not hold what was written");
  return static_cast<double>(8 * words * walks) / seconds;
}

Speed measure_speed(const Transformer& model, const SpeedOptions& options,
                    const std::function<void()>& before_round) {
  const std::int64_t needed = std::max(options.prompt, options.tokens + 1);
  require<UsageError>(options.prompt > 0 && options.tokens > 0 && options.rounds > 0, "bench",
                      "prompt, tokens and rounds must be positive");
  require<UsageError>(needed <= model.config().max_positions, "bench", "the model holds ",
                      model.config().max_positions, " positions, ", needed, " are asked for");
  Speed found;
  found.token_bytes = model.weight_bytes();
  BandwidthProbe probe(found.token_bytes);
  std::vector<double> prefill, decode, bandwidth;
  for (std::int64_t round = 0; round <= options.rounds; ++round) {
    if (before_round) before_round();
    const double read = probe.bytes_per_second();
    const double prompt = prefill_seconds(model, options.prompt);
    const double tokens = decode_seconds(model, options.tokens);
    if (round == 0) continue;  // warms up
    bandwidth.push_back(read);
    prefill.push_back(static_cast<double>(options.prompt) / prompt);
    decode.push_back(static_cast<double>(options.tokens) / tokens);
  }
  found.prefill = median(prefill);
  found.decode = median(decode);
  found.bandwidth = median(bandwidth);
  return found;
}

}  // namespace attar
