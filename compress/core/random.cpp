#include "compress/core/random.h"

#include <cmath>
#include <numbers>

namespace attar {
namespace {

// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): a bijection that mixes all bits.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}
constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

}  // namespace

CounterRandom::CounterRandom(std::uint64_t seed, std::string_view purpose, std::uint64_t stream)
    : key_(mix(seed + kGolden)) {
  for (const char c : purpose) key_ = mix(key_ + kGolden + static_cast<unsigned char>(c));
  key_ = mix(key_ + kGolden * (stream + 1));
}

std::uint64_t CounterRandom::bits(std::uint64_t index) const {
  return mix(mix(key_ + kGolden * (index + 1)) + key_);
}

double CounterRandom::uniform(std::uint64_t index) const {
  return static_cast<double>(bits(index) >> 11) * 0x1p-53;
}

double CounterRandom::normal(std::uint64_t index) const {
  const double radius = std::sqrt(-2 * std::log1p(-uniform(2 * index)));
  return radius * std::cos(2 * std::numbers::pi * uniform(2 * index + 1));
}

std::uint64_t CounterRandom::below(std::uint64_t index, std::uint64_t bound) const {
  return static_cast<std::uint64_t>((static_cast<unsigned __int128>(bits(index)) * bound) >> 64);
}

}  // namespace attar
