#include "compress/kernels/packed_product/packed_product.h"

#include <cstdlib>
#include <memory>
#include <stdexcept>

#include "compress/kernels/rms_norm/rms_norm.h"
#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

class PackedProductOf : public EachVariant {
 protected:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  using Packed = std::unique_ptr<void, Free>;

  Packed blank(std::int64_t columns, std::int64_t inner, int pieces) const {
    const auto bytes =
        static_cast<std::size_t>(packed_bytes(columns, inner, pieces, PackType::f32, variant()));
    Packed memory(std::aligned_alloc(64, bytes));
    std::memset(memory.get(), 0, bytes);
    return memory;
  }
  Packed packed(const Array<float>& w, std::int64_t columns, std::int64_t inner, int pieces) const {
    Packed memory = blank(columns, inner, pieces);
    pack_matrix({w.data(), PackType::f32, 0, columns, inner, pieces, memory.get()}, variant());
    return memory;
  }
};
ATTAR_EACH_VARIANT(PackedProductOf);

// Each of the six products of pieces is one more rounding of the chain, at most 6 * inner in all;
// the three products left out come to 2 * 2^-24 + 2^-32 of the whole.
double bound(std::int64_t inner, double sum_of_magnitudes) {
  return (6 * static_cast<double>(inner) + 8) * kUnit * sum_of_magnitudes + 1e-30;
}

TEST_P(PackedProductOf, AgreesWithDoubleArithmeticForEveryShape) {
  for (const std::int64_t rows : {1, 13, 15, 16, 33, 100}) {
    for (const std::int64_t inner : {1, 31, 33, 130, 1100}) {
      for (const std::int64_t columns : {1, 16, 17, 32, 70, 150}) {
        const std::int64_t stride = inner + 3, out_stride = columns + 5;
        const auto x = normal(rows * stride, 1), w = normal(columns * inner, 2);
        const auto bias = normal(columns, 3), added = normal(rows * out_stride, 4);
        Array<float> out = added;  // padding must stay
        const Packed weights = packed(w, columns, inner, 3);
        packed_product({x.data(),
                        stride,
                        rows,
                        {weights.get(), inner, columns, 3, bias.data()},
                        added.data(),
                        out.data(),
                        out_stride},
                       variant());
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t c = 0; c < out_stride; ++c) {
            const float got = out[r * out_stride + c];
            if (c >= columns) {
              ASSERT_EQ(got, added[r * out_stride + c]) << "written past the end of a row";
              continue;
            }
            const double more = added[r * out_stride + c];
            double sum = bias[c] + more, size = std::abs(bias[c]) + std::abs(more);
            for (std::int64_t k = 0; k < inner; ++k) {
              const double term = double{x[r * stride + k]} * w[c * inner + k];
              sum += term;
              size += std::abs(term);
            }
            ASSERT_NEAR(got, sum, bound(inner, size))
                << rows << " x " << inner << " x " << columns << " at " << r << ", " << c;
          }
        }
        ASSERT_TRUE(out.guards_hold());
      }
    }
  }
}

TEST_P(PackedProductOf, IsAsExactAsAChainOfFloat32) {
  constexpr std::int64_t kRows = 32, kInner = 1536, kColumns = 32;
  const auto x = normal(kRows * kInner, 1), w = normal(kColumns * kInner, 2);
  Array<float> out(kRows * kColumns);
  const Packed weights = packed(w, kColumns, kInner, 3);
  packed_product({x.data(),
                  kInner,
                  kRows,
                  {weights.get(), kInner, kColumns, 3, nullptr},
                  nullptr,
                  out.data(),
                  kColumns},
                 variant());
  double ours = 0, plain = 0;
  for (std::int64_t r = 0; r < kRows; ++r) {
    for (std::int64_t c = 0; c < kColumns; ++c) {
      double exact = 0;
      float chain = 0;
      for (std::int64_t k = 0; k < kInner; ++k) {
        exact += double{x[r * kInner + k]} * w[c * kInner + k];
        chain = std::fma(x[r * kInner + k], w[c * kInner + k], chain);
      }
      ours += std::pow(out[r * kColumns + c] - exact, 2);
      plain += std::pow(chain - exact, 2);
    }
  }
  EXPECT_LE(std::sqrt(ours), 1.25 * std::sqrt(plain));
}

TEST_P(PackedProductOf, ARowHasTheSameBitsAloneAndAmongOthersOnAnyNumberOfThreads) {
  constexpr std::int64_t kRows = 131, kInner = 100, kColumns = 200;
  const auto x = normal(kRows * kInner, 1), w = normal(kColumns * kInner, 2);
  const Packed weights = packed(w, kColumns, kInner, 3);
  const auto multiply = [&](std::int64_t first, std::int64_t rows, float* out) {
    packed_product({x.data() + first * kInner,
                    kInner,
                    rows,
                    {weights.get(), kInner, kColumns, 3, nullptr},
                    nullptr,
                    out,
                    kColumns},
                   variant());
  };
  Array<float> together(kRows * kColumns), alone = together;
  with_threads(3, [&] { multiply(0, kRows, together.data()); });
  for (const std::int64_t step : {1, 7, 40}) {
    with_threads(step == 7 ? 2 : 1, [&] {
      for (std::int64_t r = 0; r < kRows; r += step) {
        multiply(r, std::min(step, kRows - r), alone.data() + r * kColumns);
      }
    });
    EXPECT_TRUE(alone.same_bits(together)) << step << " rows at a time";
  }
}

TEST_P(PackedProductOf, Float16NeedsTwoPiecesAndBfloat16OneAndMoreChangeNoBit) {
  constexpr std::int64_t kRows = 20, kInner = 96, kColumns = 40;
  const auto x = normal(kRows * kInner, 1);
  for (int needed = 1; needed <= 3; ++needed) {
    auto w = normal(kColumns * kInner, 2);
    for (std::int64_t i = 0; i < w.size() && needed < 3; ++i) {
      std::uint32_t bits;
      std::memcpy(&bits, &w[i], 4);
      bits &= needed == 1 ? 0xffff0000u : 0xffffe000u;  // 8 or 11 significant bits
      std::memcpy(&w[i], &bits, 4);
    }
    Array<float> expected(kRows * kColumns);
    for (int pieces = 3; pieces >= needed; --pieces) {
      const Packed weights = blank(kColumns, kInner, pieces);
      EXPECT_EQ(pack_matrix({w.data(), PackType::f32, 0, kColumns, kInner, pieces, weights.get()},
                            variant()),
                variant().splits ? needed : 1);
      Array<float> out(kRows * kColumns);
      packed_product({x.data(),
                      kInner,
                      kRows,
                      {weights.get(), kInner, kColumns, pieces, nullptr},
                      nullptr,
                      out.data(),
                      kColumns},
                     variant());
      if (pieces == 3) expected = out;
      EXPECT_TRUE(out.same_bits(expected)) << pieces << " pieces where " << needed << " suffice";
    }
  }
}

TEST_P(PackedProductOf, PartsPackedOneAfterTheOtherAreTheWhole) {
  constexpr std::int64_t kInner = 70, kColumns = 90;
  const auto w = normal(kColumns * kInner, 1);
  const Packed whole = packed(w, kColumns, kInner, 3), parts = blank(kColumns, kInner, 3);
  std::int64_t first = 0;
  for (const std::int64_t count : {5, 40, 1, 44}) {
    pack_matrix({w.data() + first * kInner, PackType::f32, first, count, kInner, 3, parts.get()},
                variant());
    first += count;
  }
  EXPECT_EQ(std::memcmp(whole.get(), parts.get(),
                        static_cast<std::size_t>(
                            packed_bytes(kColumns, kInner, 3, PackType::f32, variant()))),
            0);
}

// The steps of a block's second half, each over all rows; then all of them for a few rows at a
// time.
TEST_P(PackedProductOf, FinishingABlockInOneGivesTheBitsOfTheSteps) {
  constexpr std::int64_t kRows = 141, kHidden = 168, kMixed = 48, kWidth = 96;
  constexpr float kEps = 1e-5f;
  const auto x = normal(kRows * kHidden, 1), mixed = normal(kRows * kMixed, 2);
  const auto norm = normal(kHidden, 3), biases = normal(2 * kWidth, 4);
  const Packed output = packed(normal(kHidden * kMixed, 5), kHidden, kMixed, 3);
  const Packed gate_up = packed(normal(2 * kWidth * kHidden, 6), 2 * kWidth, kHidden, 3);
  const Packed down = packed(normal(kHidden * kWidth, 7), kHidden, kWidth, 3);
  for (const float* bias : {static_cast<const float*>(nullptr), biases.data()}) {
    const PackedLayer output_layer{output.get(), kMixed, kHidden, 3, bias};
    const PackedLayer gate_up_layer{gate_up.get(), kHidden, 2 * kWidth, 3, bias};
    const PackedLayer down_layer{down.get(), kWidth, kHidden, 3, bias};
    Array<float> h(kRows * kHidden), normed = h, both(kRows * 2 * kWidth), gated(kRows * kWidth);
    Array<float> expected = h, projected = both, fused = x;
    packed_product({mixed.data(), kMixed, kRows, output_layer, x.data(), h.data(), kHidden},
                   variant());
    rms_norm({h.data(), norm.data(), normed.data(), kRows, kHidden, kEps}, variant());
    packed_product({normed.data(), kHidden, kRows, gate_up_layer, nullptr, both.data(), 2 * kWidth},
                   variant());
    gated_activation({both.data(), both.data() + kWidth, gated.data(), kRows, kWidth, 2 * kWidth,
                      2 * kWidth, kWidth, Activation::silu},
                     variant());
    packed_product({gated.data(), kWidth, kRows, down_layer, h.data(), expected.data(), kHidden},
                   variant());
    for (const int threads : {1, 2}) {
      fused = x;
      with_threads(threads, [&] {
        packed_finish({fused.data(), mixed.data(), kRows, output_layer, norm.data(), kEps,
                       gate_up_layer, Activation::silu, down_layer, fused.data()},
                      variant());
      });
      EXPECT_TRUE(fused.same_bits(expected)) << threads << " threads";
    }
    Array<float> alone(kHidden), first(kHidden);
    packed_finish({x.data(), mixed.data(), 1, output_layer, norm.data(), kEps, gate_up_layer,
                   Activation::silu, down_layer, alone.data()},
                  variant());
    std::copy_n(expected.data(), kHidden, first.data());
    EXPECT_TRUE(alone.same_bits(first)) << "one row";
    // The norm inside of a product.
    packed_product({h.data(), kHidden, kRows, gate_up_layer, nullptr, projected.data(), 2 * kWidth,
                    norm.data(), kEps},
                   variant());
    EXPECT_TRUE(projected.same_bits(both));
    for (std::int64_t r = 0; r < kRows; ++r) {
      packed_product({h.data() + r * kHidden, kHidden, 1, gate_up_layer, nullptr,
                      projected.data() + r * 2 * kWidth, 2 * kWidth, norm.data(), kEps},
                     variant());
    }
    EXPECT_TRUE(projected.same_bits(both)) << "row by row";
  }
}

// What stands the other way round is turned over on the way: the same sums, the same bits.
TEST_P(PackedProductOf, TurnedMatricesGiveTheSameBits) {
  constexpr std::int64_t kRows = 300, kInner = 75, kColumns = 70, kApart = 5;
  const auto x = normal(kRows * kInner, 1), w = normal(kColumns * kInner, 2);
  Array<float> x_turned(kInner * (kRows + kApart)), w_turned(kInner * (kColumns + kApart));
  for (std::int64_t k = 0; k < kInner; ++k) {
    for (std::int64_t r = 0; r < kRows; ++r) {
      x_turned[k * (kRows + kApart) + r] = x[r * kInner + k];
    }
    for (std::int64_t c = 0; c < kColumns; ++c) {
      w_turned[k * (kColumns + kApart) + c] = w[c * kInner + k];
    }
  }
  const auto added = normal(kRows * kColumns, 3);
  const auto multiply = [&](const float* rows, std::int64_t stride, bool turned,
                            const Packed& weights) {
    Array<float> out = added;
    PackedProduct call{
        rows,       stride,     kRows,   {weights.get(), kInner, kColumns, 3, nullptr},
        out.data(), out.data(), kColumns};
    call.turned = turned;
    packed_product(call, variant());
    EXPECT_TRUE(out.guards_hold());
    return out;
  };
  const Packed weights = packed(w, kColumns, kInner, 3), again = blank(kColumns, kInner, 3);
  pack_matrix({w_turned.data(), PackType::f32, 0, kColumns, kInner, 3, again.get(),
               /*turned=*/true, kColumns + kApart},
              variant());
  const Array<float> expected = multiply(x.data(), kInner, false, weights);
  for (const int threads : {1, 2}) {
    with_threads(threads, [&] {
      EXPECT_TRUE(multiply(x_turned.data(), kRows + kApart, true, again).same_bits(expected));
    });
  }
}

TEST_P(PackedProductOf, PacksHalvesAsTheFloatsThatTheyStandFor) {
  constexpr std::int64_t kInner = 70, kColumns = 33;
  const auto w = normal(kColumns * kInner, 1);
  const auto count = static_cast<std::size_t>(w.size());
  const auto compare = [&](PackType type, auto narrow, auto widen) {
    std::vector<std::uint16_t> halves(count);
    narrow(w.data(), halves.data(), w.size());
    Array<float> floats(w.size());
    widen(halves.data(), floats.data(), w.size());
    const Packed expected = packed(floats, kColumns, kInner, 2), got = blank(kColumns, kInner, 2);
    pack_matrix({halves.data(), type, 0, kColumns, kInner, 2, got.get()}, variant());
    EXPECT_EQ(std::memcmp(expected.get(), got.get(),
                          static_cast<std::size_t>(
                              packed_bytes(kColumns, kInner, 2, PackType::f32, variant()))),
              0);
  };
  compare(PackType::f16, variant().f32_to_f16, variant().f16_to_f32);
  compare(PackType::bf16, variant().f32_to_bf16, variant().bf16_to_f32);
}

// Panels that hold 16 bits are half as large, and what they multiply to is the same.
TEST_P(PackedProductOf, HeldHalvesGiveTheBitsOfTheirFloats) {
  constexpr std::int64_t kInner = 1100, kColumns = 70;
  const auto w = normal(kColumns * kInner, 1), x = normal(40 * kInner, 2);
  const auto count = static_cast<std::size_t>(w.size());
  const auto compare = [&](PackType type, auto narrow, auto widen) {
    std::vector<std::uint16_t> halves(count);
    narrow(w.data(), halves.data(), w.size());
    Array<float> floats(w.size());
    widen(halves.data(), floats.data(), w.size());
    const Packed plain = packed(floats, kColumns, kInner, 2);
    const std::int64_t bytes = packed_bytes(kColumns, kInner, 2, type, variant());
    EXPECT_EQ(bytes == packed_bytes(kColumns, kInner, 2, PackType::f32, variant()),
              variant().splits);
    const Packed held = blank(kColumns, kInner, 2);
    for (const std::int64_t first : {0, 40}) {  // two layers, the second from within a panel
      const std::int64_t rows = first == 0 ? 40 : kColumns - 40;
      pack_matrix({.values = halves.data() + first * kInner,
                   .type = type,
                   .first = first,
                   .count = rows,
                   .inner = kInner,
                   .pieces = 2,
                   .weights = held.get(),
                   .held = type},
                  variant());
    }
    const auto multiply = [&](const Packed& weights, std::int64_t rows, PackType holds) {
      Array<float> out(rows * kColumns);
      packed_product({x.data(),
                      kInner,
                      rows,
                      {weights.get(), kInner, kColumns, 2, nullptr, holds},
                      nullptr,
                      out.data(),
                      kColumns},
                     variant());
      EXPECT_TRUE(out.guards_hold());
      return out;
    };
    for (const std::int64_t rows : {1, 5, 40}) {
      EXPECT_TRUE(multiply(held, rows, type).same_bits(multiply(plain, rows, PackType::f32)));
    }
  };
  compare(PackType::f16, variant().f32_to_f16, variant().f16_to_f32);
  compare(PackType::bf16, variant().f32_to_bf16, variant().bf16_to_f32);
  EXPECT_EQ(type_to_hold(PackType::f32, variant()), PackType::f32);
  EXPECT_EQ(type_to_hold(PackType::bf16, variant()), PackType::bf16);
  EXPECT_EQ(type_to_hold(PackType::f16, variant()) == PackType::f16, !variant().widens_slowly);
  const PackMatrix wrong{.values = w.data(),
                         .type = PackType::f32,
                         .count = 1,
                         .inner = 1,
                         .pieces = 1,
                         .held = PackType::f16};
  EXPECT_THROW(pack_matrix(wrong, variant()), std::invalid_argument);
}

TEST_P(PackedProductOf, WhatIsNotFiniteStaysInItsRow) {
  constexpr std::int64_t kInner = 64, kColumns = 33;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  float loud = nan;  // a NaN whose bits are all ones
  const std::uint32_t ones = 0x7fffffffu;
  std::memcpy(&loud, &ones, 4);
  const Packed weights = packed(normal(kColumns * kInner, 2), kColumns, kInner, 3);
  for (const float bad : {nan, loud, std::numeric_limits<float>::infinity()}) {
    auto x = normal(3 * kInner, 1);
    x[kInner + 5] = bad;
    Array<float> out(3 * kColumns);
    packed_product({x.data(),
                    kInner,
                    3,
                    {weights.get(), kInner, kColumns, 3, nullptr},
                    nullptr,
                    out.data(),
                    kColumns},
                   variant());
    for (std::int64_t i = 0; i < out.size(); ++i) {
      EXPECT_EQ(std::isfinite(out[i]), i / kColumns != 1) << "element " << i;
    }
  }
}

TEST_P(PackedProductOf, RefusesWeightsThatItCannotRead) {
  const auto x = normal(32, 1);
  float out[1];
  const Packed weights = blank(1, 32, 1);
  const auto multiply = [&](const void* from, int pieces, const Variant& with) {
    packed_product({x.data(), 32, 1, {from, 32, 1, pieces, nullptr}, nullptr, out, 1}, with);
  };
  EXPECT_THROW(multiply(weights.get(), 0, variant()), std::invalid_argument);
  EXPECT_THROW(multiply(weights.get(), 4, variant()), std::invalid_argument);
  EXPECT_THROW(multiply(static_cast<const char*>(weights.get()) + 2, 1, variant()),
               std::invalid_argument);
}

}  // namespace
}  // namespace attar::kernels
