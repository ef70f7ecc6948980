#include "eval/python_random.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <unordered_set>

#include "compress/core/errors.h"

namespace attar::eval {

void PythonRandom::seed_with(std::uint32_t seed) {
  state_[0] = seed;
  for (int i = 1; i < kWords; ++i) {
    state_[i] = 1812433253U * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<unsigned>(i);
  }
}

PythonRandom::PythonRandom(std::uint64_t seed) {
  const std::array<std::uint32_t, 2> key = {static_cast<std::uint32_t>(seed),
                                            static_cast<std::uint32_t>(seed >> 32)};
  const unsigned length = key[1] == 0 ? 1 : 2;
  seed_with(19650218U);
  int i = 1;
  unsigned j = 0;
  const auto wrap = [&] {
    if (i < kWords) return;
    state_[0] = state_[kWords - 1];
    i = 1;
  };
  for (int k = 0; k < kWords; ++k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525U)) + key[j] + j;
    ++i;
    j = (j + 1) % length;
    wrap();
  }
  for (int k = 0; k < kWords - 1; ++k) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941U)) -
                static_cast<unsigned>(i);
    ++i;
    wrap();
  }
  state_[0] = 0x80000000U;
}

void PythonRandom::refill() {
  constexpr int kShift = 397;
  const auto twist = [](std::uint32_t high, std::uint32_t low) {
    const std::uint32_t y = (high & 0x80000000U) | (low & 0x7fffffffU);
    return (y >> 1) ^ ((low & 1U) != 0 ? 0x9908b0dfU : 0U);
  };
  for (int k = 0; k < kWords - kShift; ++k) {
    state_[k] = state_[k + kShift] ^ twist(state_[k], state_[k + 1]);
  }
  for (int k = kWords - kShift; k < kWords - 1; ++k) {
    state_[k] = state_[k + kShift - kWords] ^ twist(state_[k], state_[k + 1]);
  }
  state_[kWords - 1] = state_[kShift - 1] ^ twist(state_[kWords - 1], state_[0]);
  used_ = 0;
}

std::uint32_t PythonRandom::next() {
  if (used_ == kWords) refill();
  std::uint32_t y = state_[used_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680U;
  y ^= (y << 15) & 0xefc60000U;
  return y ^ (y >> 18);
}

std::uint64_t PythonRandom::random_bits(int count) {
  require<UsageError>(count >= 1 && count <= 64, "random", "count must be in [1, 64], got ", count);
  if (count <= 32) return next() >> (32 - count);
  const std::uint64_t low = next();
  const std::uint64_t high = next() >> (64 - count);
  return low | (high << 32);
}

double PythonRandom::random() {
  const std::uint32_t a = next() >> 5;
  const std::uint32_t b = next() >> 6;
  return (a * 67108864.0 + b) * (1.0 / 9007199254740992.0);
}

std::uint64_t PythonRandom::below(std::uint64_t limit) {
  if (limit == 0) return 0;
  const auto bits = static_cast<int>(std::bit_width(limit));
  std::uint64_t drawn = random_bits(bits);
  while (drawn >= limit) drawn = random_bits(bits);
  return drawn;
}

std::vector<std::int64_t> PythonRandom::sample(std::int64_t population, std::int64_t count) {
  require<UsageError>(count >= 0 && count <= population, "random", "cannot sample ", count,
                      " of a population of ", population);
  std::vector<std::int64_t> result(static_cast<std::size_t>(count));
  double pool_limit = 21;  // a set costs about as much as a list of this size
  if (count > 5) {
    pool_limit +=
        std::pow(4.0, std::ceil(std::log(static_cast<double>(count) * 3) / std::log(4.0)));
  }
  if (static_cast<double>(population) <= pool_limit) {
    std::vector<std::int64_t> pool(static_cast<std::size_t>(population));
    for (std::int64_t i = 0; i < population; ++i) pool[i] = i;
    for (std::int64_t i = 0; i < count; ++i) {
      const std::uint64_t j = below(static_cast<std::uint64_t>(population - i));
      result[i] = pool[j];
      pool[j] = pool[population - i - 1];
    }
    return result;
  }
  std::unordered_set<std::uint64_t> taken;
  for (std::int64_t i = 0; i < count; ++i) {
    std::uint64_t j = below(static_cast<std::uint64_t>(population));
    while (!taken.insert(j).second) j = below(static_cast<std::uint64_t>(population));
    result[i] = static_cast<std::int64_t>(j);
  }
  return result;
}

}  // namespace attar::eval
