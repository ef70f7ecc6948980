// Random numbers from a counter: the value depends on (seed, purpose, index) alone, never on what
// was drawn before, by which thread, or in which order.
#pragma once

#include <cstdint>
#include <string_view>

namespace attar {

class CounterRandom {
 public:
  CounterRandom(std::uint64_t seed, std::string_view purpose, std::uint64_t stream = 0);

  std::uint64_t bits(std::uint64_t index) const;
  double uniform(std::uint64_t index) const;                            // [0, 1)
  double normal(std::uint64_t index) const;                             // mean 0, variance 1
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;  // [0, bound)

 private:
  std::uint64_t key_;
};

}  // namespace attar
