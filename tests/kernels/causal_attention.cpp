#include "compress/kernels/causal_attention/causal_attention.h"

#include <algorithm>
#include <stdexcept>

#include "tests/kernels/each_variant.h"

namespace attar::kernels {
namespace {

struct Shape {
  std::int64_t heads, kv_heads, head_dim, queries, keys;
};

struct Problem {
  Shape shape;
  Array<float> q, k, v;
  float scale;

  // Strides leave a gap, so that a kernel that ignores them is caught.
  std::int64_t q_stride() const { return shape.heads * shape.head_dim + 3; }
  std::int64_t kv_stride() const { return shape.kv_heads * shape.head_dim + 5; }
};

Problem make_problem(const Shape& s, float spread = 1) {
  Problem made = {s, normal(s.queries * (s.heads * s.head_dim + 3), 1, spread),
                  normal(s.keys * (s.kv_heads * s.head_dim + 5), 2, spread),
                  normal(s.keys * (s.kv_heads * s.head_dim + 5), 3),
                  1 / std::sqrt(static_cast<float>(s.head_dim))};
  return made;
}

// The queries [begin, end) of the problem, each at its own absolute position.
void attend(const Problem& p, std::int64_t begin, std::int64_t end, float* out,
            const Variant& variant) {
  const AttentionSequence sequence = {
      p.q.data() + begin * p.q_stride(),   p.k.data(), p.v.data(), out, end - begin,
      p.shape.keys - p.shape.queries + end};
  causal_attention({.sequences = &sequence,
                    .sequence_count = 1,
                    .heads = p.shape.heads,
                    .kv_heads = p.shape.kv_heads,
                    .head_dim = p.shape.head_dim,
                    .q_stride = p.q_stride(),
                    .k_stride = p.kv_stride(),
                    .v_stride = p.kv_stride(),
                    .out_stride = p.shape.heads * p.shape.head_dim,
                    .scale = p.scale},
                   variant);
}

Array<float> attend_all(const Problem& p, const Variant& variant) {
  Array<float> out(p.shape.queries * p.shape.heads * p.shape.head_dim);
  attend(p, 0, p.shape.queries, out.data(), variant);
  EXPECT_TRUE(out.guards_hold());
  return out;
}

// Compares one row of one head with a softmax in double. A score is off by at most
// (head_dim + 2) units of scale * sum |q k| and one of |score - max|; a weight by that and 4 units
// (exponential, decays); the sums over keys add one unit a key and tile.
void expect_row_near(const Problem& p, std::int64_t query, std::int64_t head,
                     const Array<float>& out) {
  const auto& s = p.shape;
  const std::int64_t seen = s.keys - s.queries + query + 1;
  const std::int64_t kv = head / (s.heads / s.kv_heads) * s.head_dim;
  const float* q = p.q.data() + query * p.q_stride() + head * s.head_dim;
  std::vector<double> scores(seen);
  double error = 0, low = INFINITY, high = -INFINITY;
  for (std::int64_t j = 0; j < seen; ++j) {
    double magnitude = 0;
    for (std::int64_t d = 0; d < s.head_dim; ++d) {
      const double term = double(q[d]) * p.k[j * p.kv_stride() + kv + d] * p.scale;
      scores[j] += term;
      magnitude += std::abs(term);
    }
    error = std::max(error, double(s.head_dim + 2) * magnitude * kUnit);
    low = std::min(low, scores[j]);
    high = std::max(high, scores[j]);
  }
  error += (high - low) * kUnit;
  double total = 0;
  for (double& score : scores) total += score = std::exp(score - high);
  const double relative = std::expm1(2 * error) + (2.0 * double(seen) * 65 / 64 + 10) * kUnit;
  for (std::int64_t d = 0; d < s.head_dim; ++d) {
    double expected = 0, magnitude = 0;
    for (std::int64_t j = 0; j < seen; ++j) {
      const double term = scores[j] / total * p.v[j * p.kv_stride() + kv + d];
      expected += term;
      magnitude += std::abs(term);
    }
    ASSERT_NEAR(out[(query * s.heads + head) * s.head_dim + d], expected, relative * magnitude)
        << "query " << query << " head " << head << " component " << d;
  }
}

void expect_all_near(const Problem& p, const Array<float>& out) {
  for (std::int64_t i = 0; i < p.shape.queries; ++i) {
    for (std::int64_t h = 0; h < p.shape.heads; ++h) expect_row_near(p, i, h, out);
  }
}

class CausalAttentionOf : public EachVariant {};
ATTAR_EACH_VARIANT(CausalAttentionOf);

TEST_P(CausalAttentionOf, AgreesWithASoftmaxInDoubleForEveryHeadSize) {
  for (std::int64_t head_dim = 1; head_dim <= 4 * kWidest + 1; ++head_dim) {
    const Problem p = make_problem({2, 1, head_dim, 19, 19});
    expect_all_near(p, attend_all(p, variant()));
  }
  for (const std::int64_t head_dim : {72, 80, 96, 100, 128, 160, 256}) {
    const Problem p = make_problem({1, 1, head_dim, 66, 70});
    expect_all_near(p, attend_all(p, variant()));
  }
}

TEST_P(CausalAttentionOf, AgreesForEveryNumberOfKeysAroundATile) {
  for (const std::int64_t keys : {1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 200}) {
    const Problem p = make_problem({1, 1, 16, keys, keys});
    expect_all_near(p, attend_all(p, variant()));
  }
}

TEST_P(CausalAttentionOf, AgreesWithGroupedHeadsBehindACachedPrefix) {
  for (const Shape& shape : {Shape{9, 3, 64, 40, 150}, Shape{8, 8, 24, 1, 77},
                             Shape{40, 1, 8, 5, 70}, Shape{4, 2, 40, 130, 131}}) {
    const Problem p = make_problem(shape);
    expect_all_near(p, attend_all(p, variant()));
  }
}

// Scores up to some +-20000: exp of them overflows unless the maximum is taken off first.
TEST_P(CausalAttentionOf, LargeScoresDoNotOverflow) {
  const Problem p = make_problem({2, 2, 64, 100, 100}, 70.0f);
  const auto out = attend_all(p, variant());
  for (std::int64_t i = 0; i < out.size(); ++i) ASSERT_TRUE(std::isfinite(out[i]));
  Problem shifted = make_problem({1, 1, 8, 70, 70});
  for (std::int64_t i = 0; i < shifted.k.size(); ++i) shifted.k[i] = 1000;  // all keys alike
  const auto mean = attend_all(shifted, variant());
  for (std::int64_t i = 0; i < 70; ++i) {
    double expected = 0;
    for (std::int64_t j = 0; j <= i; ++j) expected += shifted.v[j * shifted.kv_stride()];
    EXPECT_NEAR(mean[i * 8], expected / double(i + 1), 1e-5);
  }
}

// q = 0 weighs all seen keys alike: row i is the mean of v[0..i].
TEST_P(CausalAttentionOf, MatchesHandWorkedMeans) {
  const float q[] = {0, 0}, k[] = {5, -3}, v[] = {2, 8};
  float out[2];
  const AttentionSequence sequence = {q, k, v, out, 2, 2};
  causal_attention({&sequence, 1, 1, 1, 1, 1, 1, 1, 1, 1.0f}, variant());
  EXPECT_EQ(out[0], 2.0f);
  EXPECT_EQ(out[1], 5.0f);
}

TEST_P(CausalAttentionOf, BitsAreTheSameInOnePrefillInPiecesAndInDecoding) {
  for (const Shape& shape :
       {Shape{3, 1, 64, 200, 200}, Shape{2, 2, 24, 140, 145}, Shape{7, 1, 20, 130, 131}}) {
    const Problem p = make_problem(shape, 1.5f);
    const auto whole = attend_all(p, variant());
    const std::int64_t row = shape.heads * shape.head_dim;
    for (std::int64_t cut = 0; cut <= shape.queries; cut += 1 + cut % 5) {
      Array<float> pieces(whole.size());
      attend(p, 0, cut, pieces.data(), variant());
      attend(p, cut, shape.queries, pieces.data() + cut * row, variant());
      ASSERT_TRUE(pieces.same_bits(whole)) << "cut at " << cut;
    }
    Array<float> decoded(whole.size());
    for (std::int64_t i = 0; i < shape.queries; ++i) {
      attend(p, i, i + 1, decoded.data() + i * row, variant());
    }
    ASSERT_TRUE(decoded.same_bits(whole));
    Array<float> chunks(whole.size());
    for (std::int64_t i = 0; i < shape.queries; i += 7) {
      attend(p, i, std::min(i + 7, shape.queries), chunks.data() + i * row, variant());
    }
    ASSERT_TRUE(chunks.same_bits(whole));
  }
}

TEST_P(CausalAttentionOf, BitsAreTheSameBesideOtherSequencesAndWithMoreThreads) {
  const Problem p = make_problem({6, 2, 32, 150, 150});
  const auto whole = attend_all(p, variant());
  for (const int threads : {1, 2, 3}) {
    Array<float> first(whole.size()), second(whole.size());
    const AttentionSequence both[] = {{p.q.data(), p.k.data(), p.v.data(), first.data(), 150, 150},
                                      {p.q.data(), p.k.data(), p.v.data(), second.data(), 90, 90}};
    with_threads(threads, [&] {
      causal_attention(
          {both, 2, 6, 2, 32, p.q_stride(), p.kv_stride(), p.kv_stride(), 6 * 32, p.scale},
          variant());
    });
    EXPECT_TRUE(first.same_bits(whole)) << threads << " threads";
    EXPECT_EQ(std::memcmp(second.data(), whole.data(), 90 * 6 * 32 * sizeof(float)), 0);
  }
}

TEST_P(CausalAttentionOf, LaterKeysNeverTouchARowEvenWhenTheyAreNan) {
  Problem p = make_problem({2, 1, 24, 90, 90});
  const auto whole = attend_all(p, variant());
  for (const std::int64_t first_bad : {1, 5, 30, 63, 64, 65, 89}) {
    Problem bad = p;
    for (std::int64_t i = first_bad * p.kv_stride(); i < p.k.size(); ++i) {
      bad.k[i] = std::numeric_limits<float>::quiet_NaN();
      bad.v[i] = std::numeric_limits<float>::infinity();
    }
    const auto out = attend_all(bad, variant());
    ASSERT_EQ(std::memcmp(out.data(), whole.data(), first_bad * 2 * 24 * sizeof(float)), 0)
        << "bad from " << first_bad;
  }
}

TEST(CausalAttention, RefusesShapesThatDoNotFit) {
  float x[8] = {};
  const AttentionSequence good = {x, x, x, x + 4, 1, 1}, bad = {x, x, x, x + 4, 2, 1};
  EXPECT_NO_THROW(causal_attention({&good, 1, 1, 1, 2, 2, 2, 2, 2, 1.0f}));
  EXPECT_THROW(causal_attention({&bad, 1, 1, 1, 2, 2, 2, 2, 2, 1.0f}), std::invalid_argument);
  EXPECT_THROW(causal_attention({&good, 1, 3, 2, 2, 2, 2, 2, 2, 1.0f}), std::invalid_argument);
  EXPECT_THROW(causal_attention({&good, 1, 1, 0, 2, 2, 2, 2, 2, 1.0f}), std::invalid_argument);
  EXPECT_THROW(causal_attention({&good, 1, 1, 1, 257, 2, 2, 2, 2, 1.0f}), std::invalid_argument);
}

}  // namespace
}  // namespace attar::kernels
