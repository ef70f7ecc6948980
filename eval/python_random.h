// CPython's random.Random, bit for bit: few-shot examples and bootstrap errors of
// lm-evaluation-harness are drawn with it, so the same numbers are needed here. For everything of
// our own there is the counter-based generator of statistics.h.
//
// Generator: MT19937 (Matsumoto & Nishimura 1998), seeded by init_by_array over the 32-bit words of
// the seed, lowest first. Draws as in CPython 3.11 (3.9 to 3.13 agree).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace attar::eval {

class PythonRandom {
 public:
  // random.Random(seed) for a non-negative integer seed.
  explicit PythonRandom(std::uint64_t seed);

  // The next 32 random bits.
  std::uint32_t next();

  // getrandbits(count), count in 1..64.
  std::uint64_t random_bits(int count);

  // random(): a double in [0, 1) with 53 random bits.
  double random();

  // _randbelow(limit): uniform in [0, limit), 0 for limit = 0, by rejection.
  std::uint64_t below(std::uint64_t limit);

  // Positions that sample(range(population), count) picks, in its order: for a small population a
  // shrinking pool, for a large one a set of what was taken; the border between the two is
  // CPython's. Throws UsageError if count > population.
  std::vector<std::int64_t> sample(std::int64_t population, std::int64_t count);

  // One position of choices(range(population)): floor(random() * population).
  std::int64_t choice(std::int64_t population) {
    return static_cast<std::int64_t>(random() * static_cast<double>(population));
  }

 private:
  static constexpr int kWords = 624;
  void seed_with(std::uint32_t seed);
  void refill();

  std::array<std::uint32_t, kWords> state_;
  int used_ = kWords;
};

}  // namespace attar::eval
