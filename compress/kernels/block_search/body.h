// Searches of group scales, once for every instruction set S. A lane is a group: S::kWidth groups
// go side by side, each as a plain loop over its elements would.
#pragma once

#include "compress/kernels/block_search/block_search.h"
#include "compress/kernels/simd/inline.h"

namespace attar::kernels {

inline constexpr int kGroupMost = 32;        // elements
inline constexpr float kTinyGroup = 1e-15f;  // signed and table groups below it are zero

// Element e of lane k at [e * W + k]. Lanes beyond the last group are zero.
template <class S>
struct GroupLanes {
  float x[kGroupMost * S::kWidth];
  float p[kGroupMost * S::kWidth];
  float q[kGroupMost * S::kWidth];
};

template <class S>
ATTAR_INLINE void gather_lanes(const float* from, int size, int lanes, float* to) {
  constexpr int W = S::kWidth;
  for (int k = 0; k < W; ++k) {
    for (int e = 0; e < size; ++e) to[e * W + k] = k < lanes ? from[k * size + e] : 0.0f;
  }
}

// The nearest whole number within [low, high]; low for NaN.
template <class S>
ATTAR_INLINE typename S::Floats whole(typename S::Floats x, typename S::Floats low,
                                      typename S::Floats high) {
  return S::min(S::max(S::round(x), low), high);
}

template <class S, bool absolute>
ATTAR_INLINE typename S::Floats cost_of(typename S::Floats price, typename S::Floats difference) {
  if constexpr (absolute) return S::mul(price, S::abs(difference));
  return S::mul(price, S::mul(difference, difference));
}

template <class S, bool absolute>
ATTAR_INLINE void fit_affine(const BlockSearch& call, GroupLanes<S>& lane, float* scale_out,
                             float* minimum_out) {
  constexpr int W = S::kWidth;
  using F = typename S::Floats;
  const F zero = S::broadcast(0.0f), one = S::broadcast(1.0f);
  const F top = S::broadcast(static_cast<float>(call.top));
  F low = S::load(lane.x), high = low;
  F sum_p = S::load(lane.p), sum_x = S::mul(sum_p, low);
  for (int e = 1; e < call.size; ++e) {
    const F x = S::load(lane.x + e * W), p = S::load(lane.p + e * W);
    low = S::select(S::less(x, low), x, low);
    high = S::select(S::less(high, x), x, high);
    sum_p = S::add(sum_p, p);
    sum_x = S::add(sum_x, S::mul(p, x));
  }
  low = S::select(S::less(zero, low), zero, low);
  const auto flat = S::equal(high, low);

  F minimum = low, inverse = S::div(top, S::sub(high, low)), scale = S::div(one, inverse);
  F best_inverse = inverse, best_shift = minimum, best = zero;
  for (int e = 0; e < call.size; ++e) {
    const F x = S::load(lane.x + e * W), p = S::load(lane.p + e * W);
    const F q = whole<S>(S::mul(inverse, S::sub(x, minimum)), zero, top);
    const F difference = S::sub(S::add(S::mul(scale, q), minimum), x);
    best = S::add(best, cost_of<S, absolute>(p, difference));
  }
  for (int i = 0; i <= call.tries; ++i) {
    const float reach = call.first + call.stride * static_cast<float>(i);
    const F steps = S::broadcast(reach + static_cast<float>(call.top));
    const F shift = minimum;
    inverse = S::div(steps, S::sub(high, shift));
    F sum_q = zero, sum_qq = zero, sum_qx = zero;
    for (int e = 0; e < call.size; ++e) {
      const F x = S::load(lane.x + e * W), p = S::load(lane.p + e * W);
      const F q = whole<S>(S::mul(inverse, S::sub(x, shift)), zero, top);
      S::store(lane.q + e * W, q);
      const F pq = S::mul(p, q);
      sum_q = S::add(sum_q, pq);
      sum_qq = S::add(sum_qq, S::mul(pq, q));
      sum_qx = S::add(sum_qx, S::mul(pq, x));
    }
    const F spread = S::sub(S::mul(sum_p, sum_qq), S::mul(sum_q, sum_q));
    F new_scale = S::div(S::sub(S::mul(sum_p, sum_qx), S::mul(sum_x, sum_q)), spread);
    F new_minimum = S::div(S::sub(S::mul(sum_qq, sum_x), S::mul(sum_q, sum_qx)), spread);
    const auto above = S::less(zero, new_minimum);
    new_scale = S::select(above, S::div(sum_qx, sum_qq), new_scale);
    new_minimum = S::select(above, zero, new_minimum);
    F error = zero;
    for (int e = 0; e < call.size; ++e) {
      const F value = S::add(S::mul(new_scale, S::load(lane.q + e * W)), new_minimum);
      error = S::add(error, cost_of<S, absolute>(S::load(lane.p + e * W),
                                                 S::sub(value, S::load(lane.x + e * W))));
    }
    error = S::select(S::less(zero, spread), error, best);  // as good as it was: not taken
    const auto better = S::less(error, best);
    best = S::select(better, error, best);
    scale = S::select(better, new_scale, scale);
    minimum = S::select(better, new_minimum, minimum);
    best_inverse = S::select(better, inverse, best_inverse);
    best_shift = S::select(better, shift, best_shift);
  }
  S::store(scale_out, S::select(flat, zero, scale));
  S::store(minimum_out, S::sub(zero, minimum));
  if (call.codes == nullptr) return;
  for (int e = 0; e < call.size; ++e) {
    const F q =
        whole<S>(S::mul(best_inverse, S::sub(S::load(lane.x + e * W), best_shift)), zero, top);
    S::store(lane.q + e * W, S::select(flat, zero, q));
  }
}

// The x of largest magnitude, the first of several; whether it is above kTinyGroup.
template <class S>
struct Extreme {
  typename S::Floats x;
  typename S::Mask tiny;
};
template <class S>
ATTAR_INLINE Extreme<S> extreme_of(const GroupLanes<S>& lane, int size) {
  auto largest = S::broadcast(0.0f), x_largest = largest;
  for (int e = 0; e < size; ++e) {
    const auto x = S::load(lane.x + e * S::kWidth), magnitude = S::abs(x);
    const auto larger = S::less(largest, magnitude);
    largest = S::select(larger, magnitude, largest);
    x_largest = S::select(larger, x, x_largest);
  }
  return {x_largest, S::less(largest, S::broadcast(kTinyGroup))};
}

template <class S>
struct Products {
  typename S::Floats qx, qq;
};

// Sums of p x q and p q q with codes q = whole(inverse x); keeps the codes.
template <class S>
ATTAR_INLINE Products<S> signed_products(GroupLanes<S>& lane, int size, typename S::Floats inverse,
                                         typename S::Floats low, typename S::Floats high) {
  constexpr int W = S::kWidth;
  Products<S> sum = {S::broadcast(0.0f), S::broadcast(0.0f)};
  for (int e = 0; e < size; ++e) {
    const auto x = S::load(lane.x + e * W), p = S::load(lane.p + e * W);
    const auto q = whole<S>(S::mul(inverse, x), low, high);
    S::store(lane.q + e * W, q);
    sum.qx = S::add(sum.qx, S::mul(S::mul(p, x), q));
    sum.qq = S::add(sum.qq, S::mul(S::mul(p, q), q));
  }
  return sum;
}

template <class S>
ATTAR_INLINE typename S::Floats quotient(const Products<S>& sum) {
  const auto zero = S::broadcast(0.0f);
  return S::select(S::equal(sum.qq, zero), zero, S::div(sum.qx, sum.qq));
}

template <class S>
ATTAR_INLINE void fit_signed(const BlockSearch& call, GroupLanes<S>& lane, float* scale_out) {
  constexpr int W = S::kWidth;
  using F = typename S::Floats;
  const auto reach = static_cast<float>(call.top);
  const F low = S::broadcast(-reach), high = S::broadcast(reach - 1), zero = S::broadcast(0.0f);
  const Extreme<S> extreme = extreme_of<S>(lane, call.size);
  F best_inverse = S::div(low, extreme.x);
  const Products<S> start = signed_products<S>(lane, call.size, best_inverse, low, high);
  F scale = quotient<S>(start), best = S::mul(scale, start.qx);
  for (int i = -9; i <= 9; ++i) {
    if (i == 0) continue;
    const F steps = S::broadcast(-(reach + 0.1f * static_cast<float>(i)));
    const F inverse = S::div(steps, extreme.x);
    const Products<S> sum = signed_products<S>(lane, call.size, inverse, low, high);
    const auto better = S::less(S::mul(best, sum.qq), S::mul(sum.qx, sum.qx));
    const F new_scale = S::div(sum.qx, sum.qq);
    scale = S::select(better, new_scale, scale);
    best = S::select(better, S::mul(new_scale, sum.qx), best);
    best_inverse = S::select(better, inverse, best_inverse);
  }
  S::store(scale_out, S::select(extreme.tiny, zero, scale));
  if (call.codes == nullptr) return;
  for (int e = 0; e < call.size; ++e) {
    const F q = whole<S>(S::mul(best_inverse, S::load(lane.x + e * W)), low, high);
    S::store(lane.q + e * W, S::select(extreme.tiny, zero, S::sub(q, low)));
  }
}

template <class S>
ATTAR_INLINE void fit_descent(const BlockSearch& call, GroupLanes<S>& lane, float* scale_out) {
  constexpr int W = S::kWidth;
  using F = typename S::Floats;
  const auto reach = static_cast<float>(call.top);
  const F low = S::broadcast(-reach), high = S::broadcast(reach - 1), zero = S::broadcast(0.0f);
  const Extreme<S> extreme = extreme_of<S>(lane, call.size);
  Products<S> sum = signed_products<S>(lane, call.size, S::div(low, extreme.x), low, high);
  for (int sweep = 0; sweep < 5; ++sweep) {
    unsigned moved = 0;
    for (int e = 0; e < call.size; ++e) {
      const F x = S::load(lane.x + e * W), p = S::load(lane.p + e * W);
      const F q = S::load(lane.q + e * W), px = S::mul(p, x);
      const F qx = S::sub(sum.qx, S::mul(px, q)), qq = S::sub(sum.qq, S::mul(S::mul(p, q), q));
      const F found = whole<S>(S::div(S::mul(x, qq), qx), low, high);
      const F next = S::select(S::less(zero, qx), found, q);
      const F next_qx = S::add(qx, S::mul(px, next));
      const F next_qq = S::add(qq, S::mul(S::mul(p, next), next));
      const F gain = S::mul(S::mul(next_qx, next_qx), sum.qq);
      const F loss = S::mul(S::mul(sum.qx, sum.qx), next_qq);
      // Kept where nothing moves: then the sums must not be folded anew.
      const F gain_or_none = S::select(S::equal(next, q), loss, gain);
      const auto better =
          S::less(S::select(S::less(zero, next_qq), loss, gain_or_none), gain_or_none);
      sum.qx = S::select(better, next_qx, sum.qx);
      sum.qq = S::select(better, next_qq, sum.qq);
      S::store(lane.q + e * W, S::select(better, next, q));
      moved |= S::bits(better);
    }
    if (moved == 0) break;
  }
  S::store(scale_out, S::select(extreme.tiny, zero, quotient<S>(sum)));
  if (call.codes == nullptr) return;
  for (int e = 0; e < call.size; ++e) {
    const F q = S::sub(S::load(lane.q + e * W), low);
    S::store(lane.q + e * W, S::select(extreme.tiny, zero, q));
  }
}

template <class S>
ATTAR_INLINE typename S::Floats table_point(typename S::Floats x) {
  auto point = S::broadcast(static_cast<float>(kTable16[0]));
  for (int i = 0; i < 15; ++i) {
    const float middle = static_cast<float>(kTable16[i] + kTable16[i + 1]) / 2;
    point = S::select(S::less(x, S::broadcast(middle)), point,
                      S::broadcast(static_cast<float>(kTable16[i + 1])));
  }
  return point;
}

template <class S>
ATTAR_INLINE Products<S> table_products(const GroupLanes<S>& lane, int size,
                                        typename S::Floats inverse) {
  constexpr int W = S::kWidth;
  Products<S> sum = {S::broadcast(0.0f), S::broadcast(0.0f)};
  for (int e = 0; e < size; ++e) {
    const auto x = S::load(lane.x + e * W);
    const auto q = table_point<S>(S::mul(inverse, x));
    const auto pq = S::mul(S::load(lane.p + e * W), q);
    sum.qx = S::add(sum.qx, S::mul(pq, x));
    sum.qq = S::add(sum.qq, S::mul(pq, q));
  }
  return sum;
}

template <class S>
ATTAR_INLINE void fit_table(const BlockSearch& call, GroupLanes<S>& lane, float* scale_out) {
  using F = typename S::Floats;
  const F zero = S::broadcast(0.0f), lowest = S::broadcast(static_cast<float>(kTable16[0]));
  const Extreme<S> extreme = extreme_of<S>(lane, call.size);
  const F start = S::div(S::sub(zero, extreme.x), lowest);
  Products<S> sum = table_products<S>(lane, call.size, S::div(S::broadcast(1.0f), start));
  F scale = S::div(sum.qx, sum.qq), best = S::mul(scale, sum.qx);
  for (int i = -7; i <= 7; ++i) {
    const F inverse = S::div(S::broadcast(static_cast<float>(i + kTable16[0])), extreme.x);
    sum = table_products<S>(lane, call.size, inverse);
    const auto better = S::less(S::mul(best, sum.qq), S::mul(sum.qx, sum.qx));
    const F new_scale = S::div(sum.qx, sum.qq);
    scale = S::select(better, new_scale, scale);
    best = S::select(better, S::mul(new_scale, sum.qx), best);
  }
  S::store(scale_out, S::select(extreme.tiny, zero, scale));
}

template <class S>
void block_search_groups(const BlockSearch& call, std::int64_t begin, std::int64_t end) {
  constexpr int W = S::kWidth;
  GroupLanes<S> lane;
  float scale[W], minimum[W] = {};
  for (std::int64_t g = begin; g < end; g += W) {
    const int lanes = end - g < W ? static_cast<int>(end - g) : W;
    gather_lanes<S>(call.values + g * call.size, call.size, lanes, lane.x);
    gather_lanes<S>(call.prices + g * call.size, call.size, lanes, lane.p);
    switch (call.fit) {
      case GroupFit::affine:
        fit_affine<S, false>(call, lane, scale, minimum);
        break;
      case GroupFit::affine_absolute:
        fit_affine<S, true>(call, lane, scale, minimum);
        break;
      case GroupFit::signed_codes:
        fit_signed<S>(call, lane, scale);
        break;
      case GroupFit::signed_descent:
        fit_descent<S>(call, lane, scale);
        break;
      case GroupFit::table:
        fit_table<S>(call, lane, scale);
        break;
    }
    for (int k = 0; k < lanes; ++k) {
      call.scale[g + k] = scale[k];
      if (call.minimum != nullptr) call.minimum[g + k] = minimum[k];
      if (call.codes == nullptr || call.fit == GroupFit::table) continue;
      std::uint8_t* codes = call.codes + (g + k) * call.size;
      for (int e = 0; e < call.size; ++e) {
        codes[e] = static_cast<std::uint8_t>(static_cast<int>(lane.q[e * W + k]));
      }
    }
  }
}

template <class S, GroupFit fit>
ATTAR_INLINE void price_lanes(const GroupPrices& call, GroupLanes<S>& lane,
                              typename S::Floats scale, typename S::Floats offset, float* sums) {
  constexpr int W = S::kWidth;
  using F = typename S::Floats;
  const auto reach = static_cast<float>(call.top);
  const F zero = S::broadcast(0.0f);
  const F low = S::broadcast(fit == GroupFit::affine ? 0 : -reach);
  const F high = S::broadcast(fit == GroupFit::affine ? reach : reach - 1);
  const auto none = S::equal(scale, zero);
  F one = zero, q1 = zero, q2 = zero, x1 = zero, qx = zero, x2 = zero, error = zero;
  for (int e = 0; e < call.size; ++e) {
    const F x = S::load(lane.x + e * W), p = S::load(lane.p + e * W);
    const F ratio = S::div(S::sub(x, offset), scale);
    F q = zero;
    if constexpr (fit == GroupFit::table) {
      q = table_point<S>(ratio);
    } else {
      q = whole<S>(ratio, low, high);
    }
    q = S::select(none, zero, q);
    const F difference = S::sub(S::add(S::mul(scale, q), offset), x);
    error = S::add(error, S::mul(p, S::mul(difference, difference)));
    const F pq = S::mul(p, q), px = S::mul(p, x);
    one = S::add(one, p);
    q1 = S::add(q1, pq);
    q2 = S::add(q2, S::mul(pq, q));
    x1 = S::add(x1, px);
    qx = S::add(qx, S::mul(pq, x));
    x2 = S::add(x2, S::mul(px, x));
  }
  const F all[] = {error, one, q1, q2, x1, qx, x2};
  for (int i = 0; i < 7; ++i) S::store(sums + i * W, all[i]);
}

template <class S>
void group_prices_groups(const GroupPrices& call, std::int64_t begin, std::int64_t end) {
  constexpr int W = S::kWidth;
  GroupLanes<S> lane;
  float sums[7 * W];
  for (std::int64_t g = begin; g < end; g += W) {
    const int lanes = end - g < W ? static_cast<int>(end - g) : W;
    gather_lanes<S>(call.values + g * call.size, call.size, lanes, lane.x);
    gather_lanes<S>(call.prices + g * call.size, call.size, lanes, lane.p);
    const auto scale = S::load_first(call.scale + g, lanes, 0.0f);
    const auto offset = S::load_first(call.offset + g, lanes, 0.0f);
    if (call.fit == GroupFit::affine) {
      price_lanes<S, GroupFit::affine>(call, lane, scale, offset, sums);
    } else if (call.fit == GroupFit::table) {
      price_lanes<S, GroupFit::table>(call, lane, scale, offset, sums);
    } else {
      price_lanes<S, GroupFit::signed_codes>(call, lane, scale, offset, sums);
    }
    for (int k = 0; k < lanes; ++k) {
      call.error[g + k] = sums[k];
      for (int i = 0; call.moments != nullptr && i < 6; ++i) {
        call.moments[(g + k) * 6 + i] = sums[(i + 1) * W + k];
      }
    }
  }
}

}  // namespace attar::kernels
