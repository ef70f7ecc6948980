// What the kernel tests share: every variant this processor runs, arrays at awkward addresses, and
// repeatable values.
#pragma once

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "compress/kernels/variants.h"

namespace attar::kernels {

inline constexpr double kUnit = 0x1p-24;  // rounding error of one fp32 operation, relative
inline constexpr int kWidest = 16;        // floats in the widest vector of any variant

inline std::vector<const Variant*> runnable_variants() {
  std::vector<const Variant*> found;
  for (const Variant& variant : variants()) {
    if (variant.supported()) found.push_back(&variant);
  }
  return found;
}

class EachVariant : public testing::TestWithParam<const Variant*> {
 protected:
  const Variant& variant() const { return *GetParam(); }
};

#define ATTAR_EACH_VARIANT(suite)                                              \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::ValuesIn(runnable_variants()), \
                           [](const auto& info) { return std::string(info.param->name); })

// An array whose first element is `offset` elements (or bytes, for T of one byte) off alignment,
// with guards behind it.
template <class T>
class Array {
 public:
  explicit Array(std::int64_t count, int offset = 1)
      : count_(count), offset_(offset), store_(count + offset + kGuards, guard()) {}

  T* data() { return store_.data() + offset_; }
  const T* data() const { return store_.data() + offset_; }
  T& operator[](std::int64_t i) { return data()[i]; }
  const T& operator[](std::int64_t i) const { return data()[i]; }
  std::int64_t size() const { return count_; }

  bool guards_hold() const {
    const T expected = guard();
    for (int i = 0; i < offset_; ++i) {
      if (std::memcmp(&store_[i], &expected, sizeof(T)) != 0) return false;
    }
    for (std::int64_t i = offset_ + count_; i < std::int64_t(store_.size()); ++i) {
      if (std::memcmp(&store_[i], &expected, sizeof(T)) != 0) return false;
    }
    return true;
  }
  bool same_bits(const Array& other) const {
    return count_ == other.count_ && std::memcmp(data(), other.data(), count_ * sizeof(T)) == 0;
  }

 private:
  static constexpr int kGuards = 2 * kWidest;
  static T guard() {
    T value;
    std::memset(&value, 0x5a, sizeof value);
    return value;
  }

  std::int64_t count_;
  int offset_;
  std::vector<T> store_;
};

inline Array<float> normal(std::int64_t count, unsigned seed, float spread = 1, int offset = 1) {
  Array<float> values(count, offset);
  std::mt19937 engine(seed);
  std::normal_distribution<float> distribution(0, spread);
  for (std::int64_t i = 0; i < count; ++i) values[i] = distribution(engine);
  return values;
}

// Runs `body` with so many threads, then puts the number back.
template <class Body>
void with_threads(int threads, const Body& body) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  body();
  omp_set_num_threads(before);
}

}  // namespace attar::kernels
