#include "tests/kernels/code_grids.h"

namespace attar::kernels {
namespace {

class QuantizedProducts : public EachVariant {};
ATTAR_EACH_VARIANT(QuantizedProducts);

struct Shape {
  std::int64_t columns, inner, group;
};
constexpr Shape kShapes[] = {{16, 32, 32},    {1, 192, 64},   {17, 576, 32}, {33, 576, 64},
                             {31, 1536, 128}, {48, 192, 192}, {15, 160, 64}};
constexpr SecondParameter kKinds[] = {SecondParameter::none, SecondParameter::minimum,
                                      SecondParameter::zero};

// All outputs of the first and the last of some numbers of tokens.
void expect_the_definition(const Grid& grid, const Variant& variant, const std::string& what) {
  const Packed weights(grid);
  for (const std::int64_t rows : {1, 3, 11, 33}) {
    const Array<float> x = normal(rows * grid.inner, 2);
    const Array<float> out = product(weights, x, rows, variant);
    for (const std::int64_t token : {std::int64_t{0}, rows - 1}) {
      for (std::int64_t c = 0; c < grid.count; ++c) {
        ASSERT_EQ(out[token * grid.count + c],
                  expected(grid, weights, c, x.data() + token * grid.inner))
            << what << ", bits " << grid.bits << ", kind " << int(grid.kind) << ", inputs "
            << grid.inner << ", groups of " << grid.group << ", token " << token << " of " << rows
            << ", output " << c;
      }
    }
  }
}

TEST_P(QuantizedProducts, AreTheDefinitionToTheBit) {
  for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
    for (const SecondParameter kind : kKinds) {
      for (const Shape& shape : kShapes) {
        expect_the_definition(random_grid(bits, kind, shape.columns, shape.inner, shape.group, 1),
                              variant(), "plain");
      }
    }
  }
}

TEST_P(QuantizedProducts, OfGroupsOfSixteenAreTheDefinitionToTheBit) {
  for (const int bits : {2, 3, 4, 5, 6}) {
    for (const SecondParameter kind : kKinds) {
      for (const Scales scales : {Scales::halves, Scales::floats}) {
        expect_the_definition(random_grid(bits, kind, 33, 96, 16, 31, scales), variant(), "halves");
      }
    }
  }
}

// ggml's k-quants and IQ4_XS, and every other number of bits with either group.
TEST_P(QuantizedProducts, OfSuperBlocksAreTheDefinitionToTheBit) {
  for (const int bits : {2, 3, 4, 5, 6}) {
    for (const SecondParameter kind : {SecondParameter::none, SecondParameter::minimum}) {
      for (const std::int64_t group : {16, 32}) {
        expect_the_definition(super_grid(bits, kind, 33, 768, group, 41), variant(), "super");
      }
    }
  }
  expect_the_definition(table_of(super_grid(4, SecondParameter::none, 33, 768, 32, 42)), variant(),
                        "table in super-blocks");
}

TEST_P(QuantizedProducts, OfTablesAreTheDefinitionToTheBit) {
  for (const std::int64_t group : {32, 96}) {
    for (const std::int8_t* table : {kTable16, kE2m1}) {
      const Grid codes = random_grid(4, SecondParameter::none, 17, 192, group, 51);
      expect_the_definition(table_of(codes, table), variant(), "table");
    }
  }
}

// W8A8: tokens whose lowest value is -128, and weights that make every sum as large as it gets.
TEST_P(QuantizedProducts, OfTokensRoundedAsAWholeAreTheDefinitionToTheBit) {
  for (const int bits : {4, 5, 6, 8}) {
    for (const SecondParameter kind : kKinds) {
      for (const Shape& shape : {Shape{17, 576, 576}, Shape{33, 192, 64}, Shape{17, 96, 16}}) {
        if (bits == 8 && shape.group < 32) continue;
        Grid grid = random_grid(bits, kind, shape.columns, shape.inner, shape.group, 21);
        const auto top = static_cast<std::uint8_t>((1 << bits) - 1);
        for (std::int64_t k = 0; k < shape.inner; ++k) {
          std::uint8_t* column = grid.codes.data() + k;
          column[0] = 0, column[shape.inner] = top, column[2 * shape.inner] = k % 2 ? top : 0;
        }
        const Packed weights(grid);
        for (const std::int64_t rows : {1, 4, 19}) {
          Array<float> x = normal(rows * shape.inner, 22);
          for (std::int64_t k = 0; k < shape.inner; ++k) x[k] = k < 64 ? -3.0f : 3.0f;
          const Array<float> out =
              product(weights, x, rows, variant(), nullptr, nullptr, RoundedBy::token);
          for (std::int64_t token = 0; token < rows; ++token) {
            for (std::int64_t c = 0; c < shape.columns; ++c) {
              ASSERT_EQ(
                  out[token * shape.columns + c],
                  expected(grid, weights, c, x.data() + token * shape.inner, RoundedBy::token))
                  << "bits " << bits << ", kind " << int(kind) << ", token " << token << " of "
                  << rows << ", output " << c;
            }
          }
        }
      }
    }
  }
}

// Rounding to 8 bits moves an activation by at most half of a = max |x| / 127 of its block.
TEST_P(QuantizedProducts, LieWithinTheRoundingOfActivations) {
  const std::int64_t inner = 576, columns = 40, rows = 20;
  for (const SecondParameter kind : kKinds) {
    const Grid grid = random_grid(4, kind, columns, inner, 64, 3);
    const Array<float> x = normal(rows * inner, 4);
    const Array<float> out = product(Packed(grid), x, rows, variant());
    for (std::int64_t t = 0; t < rows; ++t) {
      for (std::int64_t c = 0; c < columns; ++c) {
        double exact = 0, bound = 0, size = 0;
        for (std::int64_t b = 0; b < inner / 32; ++b) {
          double largest = 0, weights = 0;
          for (std::int64_t k = 32 * b; k < 32 * (b + 1); ++k) {
            exact += grid.value(c, k) * x[t * inner + k];
            largest = std::max(largest, std::fabs(double(x[t * inner + k])));
            weights += std::fabs(grid.value(c, k));
            size += (std::fabs(grid.value(c, k)) + 1) * largest;
          }
          bound += weights * largest / 127 / 2;
        }
        // 1.001: the factor's own rounding may carry a value across the middle of two steps.
        EXPECT_LE(std::fabs(out[t * columns + c] - exact), 1.001 * bound + 64 * kUnit * size);
      }
    }
  }
}

TEST_P(QuantizedProducts, HaveTheSameBitsAloneAndBesideOthersForAnyThreads) {
  for (const int bits : {4, 8}) {
    for (const SecondParameter kind : kKinds) {
      const std::int64_t inner = 1536, columns = 200, rows = 37;
      const Packed weights(random_grid(bits, kind, columns, inner, 32, 5));
      const Array<float> x = normal(rows * inner, 6);
      Array<float> all(1), threaded(1);
      with_threads(1, [&] { all = product(weights, x, rows, variant()); });
      with_threads(3, [&] { threaded = product(weights, x, rows, variant()); });
      EXPECT_TRUE(all.same_bits(threaded));
      for (std::int64_t t = 0; t < rows; t += 9) {
        Array<float> one(inner);
        std::memcpy(one.data(), x.data() + t * inner, static_cast<std::size_t>(inner) * 4);
        const Array<float> alone = product(weights, one, 1, variant());
        EXPECT_EQ(std::memcmp(alone.data(), all.data() + t * columns, columns * 4), 0) << t;
      }
    }
  }
}

TEST_P(QuantizedProducts, AddBiasAndWhatWasThere) {
  const std::int64_t inner = 64, columns = 21, rows = 4;
  const Packed weights(random_grid(4, SecondParameter::none, columns, inner, 32, 7));
  const Array<float> x = normal(rows * inner, 8), bias = normal(columns, 9),
                     added = normal(rows * columns, 10);
  const Array<float> bare = product(weights, x, rows, variant());
  const Array<float> full = product(weights, x, rows, variant(), bias.data(), added.data());
  for (std::int64_t i = 0; i < rows * columns; ++i) {
    EXPECT_EQ(full[i], (bare[i] + bias[i % columns]) + added[i]);
  }
}

// The second one's scale is no number of float32 but 0.
TEST_P(QuantizedProducts, AreZeroForZeroTokensAndTinyOnes) {
  const std::int64_t inner = 96, columns = 16;
  const Packed weights(random_grid(8, SecondParameter::minimum, columns, inner, 32, 23));
  Array<float> x = normal(3 * inner, 24);
  for (std::int64_t k = 0; k < inner; ++k) x[k] = 0, x[inner + k] = k % 2 ? 0x1p-149f : 0;
  const Array<float> out = product(weights, x, 3, variant(), nullptr, nullptr, RoundedBy::token);
  for (std::int64_t c = 0; c < 2 * columns; ++c) EXPECT_EQ(out[c], 0.0f);
  EXPECT_NE(out[2 * columns], 0.0f);
}

TEST_P(QuantizedProducts, AreZeroForZeroBlocksAndTinyOnes) {
  const std::int64_t inner = 96, columns = 16;
  const Packed weights(random_grid(4, SecondParameter::minimum, columns, inner, 32, 11));
  Array<float> x = normal(inner, 12);
  for (std::int64_t k = 0; k < inner; ++k) x[k] = k < 64 ? 0.0f : x[k] * 0x1p-120f;
  const Array<float> out = product(weights, x, 1, variant());
  for (std::int64_t c = 0; c < columns; ++c) EXPECT_EQ(out[c], 0.0f);
}

// Scales of float16 from its smallest to its largest, activations from 1e-25 to 1e30.
TEST_P(QuantizedProducts, HoldAtExtremeScales) {
  Grid grid = random_grid(4, SecondParameter::none, 16, 64, 32, 13);
  for (std::size_t i = 0; i < grid.scale.size(); ++i) {
    constexpr float kScales[] = {0x1p-24f, 65504.0f, -1.0f, 0.0f};
    grid.scale[i] = kScales[i % 4];
  }
  const Packed weights(grid);
  EXPECT_EQ(weights.format.parameters, HeldAs::f16);
  for (const float size : {1e-25f, 1.0f, 1e30f}) {
    const Array<float> x = normal(64, 14, size);
    const Array<float> out = product(weights, x, 1, variant());
    for (std::int64_t c = 0; c < 16; ++c) {
      EXPECT_TRUE(std::isfinite(out[c]));
      EXPECT_EQ(out[c], expected(grid, weights, c, x.data()));
    }
  }
}

TEST_P(QuantizedProducts, OfWhatIsNotFiniteAreNotFinite) {
  const std::int64_t inner = 96, columns = 16, rows = 18;
  const Packed weights(random_grid(8, SecondParameter::none, columns, inner, 32, 15));
  for (const RoundedBy by : {RoundedBy::block, RoundedBy::token}) {
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -HUGE_VALF}) {
      Array<float> x = normal(rows * inner, 16);
      x[17 * inner + 40] = bad;
      const Array<float> out = product(weights, x, rows, variant(), nullptr, nullptr, by);
      for (std::int64_t i = 0; i < rows * columns; ++i) {
        EXPECT_EQ(std::isnan(out[i]), i >= 17 * columns) << i;
      }
    }
  }
}

TEST_P(QuantizedProducts, KeepScalesThatNoHalfHolds) {
  for (const int bits : {4, 8}) {
    for (const SecondParameter kind : kKinds) {
      const Grid grid = random_grid(bits, kind, 20, 128, 64, 17, Scales::floats);
      const Packed weights(grid);
      EXPECT_EQ(weights.format.parameters, HeldAs::f32);
      const Array<float> x = normal(17 * 128, 18);
      const Array<float> out = product(weights, x, 17, variant());
      for (std::int64_t c = 0; c < 20; ++c) {
        EXPECT_EQ(out[16 * 20 + c], expected(grid, weights, c, x.data() + 16 * 128));
      }
    }
  }
}

TEST(QuantizedFormats, TakeTheBitsOfTheFile) {
  const auto bits_a_weight = [](int bits, SecondParameter kind, std::int64_t group) {
    const Grid grid = random_grid(bits, kind, 16, 512, group, 19);
    const QuantizedFormat format = format_for(grid.rows());
    return static_cast<double>(8 * quantized_bytes(16, 512, format)) / (16 * 512);
  };
  EXPECT_EQ(bits_a_weight(4, SecondParameter::none, 32), 4.5);     // Q4_0
  EXPECT_EQ(bits_a_weight(4, SecondParameter::minimum, 32), 5.0);  // Q4_1
  EXPECT_EQ(bits_a_weight(8, SecondParameter::none, 32), 8.5);     // Q8_0
  EXPECT_EQ(bits_a_weight(4, SecondParameter::zero, 128), 4.25);
  EXPECT_EQ(bits_a_weight(5, SecondParameter::none, 32), 5.5);     // Q5_0
  EXPECT_EQ(bits_a_weight(5, SecondParameter::minimum, 32), 6.0);  // Q5_1
  EXPECT_EQ(bits_a_weight(6, SecondParameter::none, 64), 6.25);
  const auto of_supers = [](const Grid& grid) {
    return static_cast<double>(8 * quantized_bytes(16, 512, format_for(grid.rows()))) / (16 * 512);
  };
  constexpr SecondParameter none = SecondParameter::none, minimum = SecondParameter::minimum;
  EXPECT_EQ(of_supers(super_grid(6, none, 16, 512, 16, 19)), 6.5625);    // Q6_K, the same
  EXPECT_EQ(of_supers(super_grid(5, minimum, 16, 512, 32, 19)), 5.625);  // Q5_K, 5.5 in the file
  EXPECT_EQ(of_supers(super_grid(4, minimum, 16, 512, 32, 19)), 4.625);  // Q4_K, 4.5
  EXPECT_EQ(of_supers(super_grid(3, none, 16, 512, 16, 19)), 3.5625);    // Q3_K, 3.4375
  EXPECT_EQ(of_supers(super_grid(2, minimum, 16, 512, 16, 19)), 3.125);  // Q2_K, 2.625
  EXPECT_EQ(of_supers(table_of(super_grid(4, none, 16, 512, 32, 19))), 4.3125);  // IQ4_XS, 4.25
}

TEST(QuantizedFormats, RefuseWhatTheKernelsCannotRead) {
  Grid grid = random_grid(4, SecondParameter::none, 2, 64, 32, 20);
  grid.inner = 48;
  EXPECT_THROW(format_for(grid.rows()), std::invalid_argument);
  grid.inner = 64;
  grid.group = 48;
  EXPECT_THROW(format_for(grid.rows()), std::invalid_argument);
  grid.group = 16;
  grid.bits = 8;
  EXPECT_THROW(format_for(grid.rows()), std::invalid_argument);
  grid.group = 32;
  grid.bits = 9;
  EXPECT_THROW(format_for(grid.rows()), std::invalid_argument);
  const Grid minima = random_grid(4, SecondParameter::minimum, 2, 64, 32, 20);
  EXPECT_THROW(format_for(table_of(minima).rows()), std::invalid_argument);
  const Grid zeros = super_grid(4, SecondParameter::zero, 2, 256, 32, 20);
  EXPECT_THROW(format_for(zeros.rows()), std::invalid_argument);
}

}  // namespace
}  // namespace attar::kernels
