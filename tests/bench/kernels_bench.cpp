// How fast every variant of every kernel is on this machine. Not a test.
//
//   kernels_bench --benchmark_filter=attention
//
// Run with OMP_NUM_THREADS=1 for the speed of one core.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "compress/kernels/causal_attention/causal_attention.h"
#include "compress/kernels/convert/convert.h"
#include "compress/kernels/gated_activation/gated_activation.h"
#include "compress/kernels/ggml_blocks/ggml_blocks.h"
#include "compress/kernels/log_softmax/log_softmax.h"
#include "compress/kernels/packed_product/packed_product.h"
#include "compress/kernels/quantized_product/quantized_product.h"
#include "compress/kernels/rms_norm/rms_norm.h"
#include "compress/kernels/rotate/rotate.h"

namespace attar::kernels {
namespace {

using benchmark::Counter;
using benchmark::State;

// Values in [-2, 2), the same on every run.
std::vector<float> noise(std::int64_t count, std::uint32_t seed) {
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) {
    seed = seed * 1664525u + 1013904223u;
    value = static_cast<float>(seed >> 8) * 0x1p-22f - 2.0f;
  }
  return values;
}

void count_rate(State& state, const char* name, std::int64_t each) {
  state.counters[name] = Counter(static_cast<double>(each), Counter::kIsIterationInvariantRate);
}

// Prefill (queries == keys) and decoding (queries == 1); counts the products of keys that are seen.
void attention(State& state, const Variant& variant, std::int64_t heads, std::int64_t kv_heads,
               std::int64_t queries, std::int64_t keys, std::int64_t head_dim) {
  const auto q = noise(queries * heads * head_dim, 1);
  const auto k = noise(keys * kv_heads * head_dim, 2), v = noise(keys * kv_heads * head_dim, 3);
  std::vector<float> out(q.size());
  const AttentionSequence sequence = {q.data(), k.data(), v.data(), out.data(), queries, keys};
  const CausalAttention call = {.sequences = &sequence,
                                .sequence_count = 1,
                                .heads = heads,
                                .kv_heads = kv_heads,
                                .head_dim = head_dim,
                                .q_stride = heads * head_dim,
                                .k_stride = kv_heads * head_dim,
                                .v_stride = kv_heads * head_dim,
                                .out_stride = heads * head_dim,
                                .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))};
  for (auto _ : state) causal_attention(call, variant);
  const std::int64_t seen = queries * (keys - queries) + queries * (queries + 1) / 2;
  count_rate(state, "FLOP/s", 4 * seen * heads * head_dim);
  count_rate(state, "cache B/s", 8 * keys * kv_heads * head_dim);
}

// x W^T, x float32, W of `type` and held as it is.
void product(State& state, const Variant& variant, std::int64_t rows, std::int64_t inner,
             std::int64_t columns, PackType type = PackType::f32) {
  constexpr int kPieces = 3;  // hold any float32
  const auto x = noise(rows * inner, 1), w = noise(columns * inner, 2);
  std::vector<float> out(static_cast<std::size_t>(rows * columns));
  std::vector<std::uint16_t> halves(w.size());
  if (type == PackType::f16) f32_to_f16(w.data(), halves.data(), columns * inner, variant);
  if (type == PackType::bf16) f32_to_bf16(w.data(), halves.data(), columns * inner, variant);
  const auto bytes = static_cast<std::size_t>(packed_bytes(columns, inner, kPieces, type, variant));
  std::vector<std::uint8_t> memory(bytes + 64);
  auto* weights = memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
  const void* values = type == PackType::f32 ? static_cast<const void*>(w.data()) : halves.data();
  pack_matrix({.values = values,
               .type = type,
               .first = 0,
               .count = columns,
               .inner = inner,
               .pieces = kPieces,
               .weights = weights,
               .held = type},
              variant);
  const PackedProduct call = {
      x.data(), inner,      rows,   {weights, inner, columns, kPieces, nullptr, type},
      nullptr,  out.data(), columns};
  for (auto _ : state) packed_product(call, variant);
  count_rate(state, "FLOP/s", 2 * rows * inner * columns);
  count_rate(state, "weights B/s", static_cast<std::int64_t>(bytes));
}

// How a type of GGUF holds codes.
struct CodesOf {
  const char* suffix;  // "": Q4_0
  int bits;
  std::int64_t group;
  SecondParameter second;
  bool super;
};
constexpr CodesOf kCodesOf[] = {{"", 4, 32, SecondParameter::none, false},
                                {"_q5_0", 5, 32, SecondParameter::none, false},
                                {"_q4_k", 4, 32, SecondParameter::minimum, true},
                                {"_q6_k", 6, 16, SecondParameter::none, true}};

// x W^T with W in such codes and x rounded to 8 bits.
void quantized(State& state, const Variant& variant, const CodesOf& type, std::int64_t rows,
               std::int64_t inner, std::int64_t columns) {
  const auto x = noise(rows * inner, 1);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(columns * inner));
  for (std::size_t i = 0; i < codes.size(); ++i) {
    codes[i] = static_cast<std::uint8_t>(i * 7 % (std::size_t{1} << type.bits));
  }
  std::vector<float> scale(codes.size() / static_cast<std::size_t>(type.group), 0.5f);
  std::vector<float> d(codes.size() / 256, 0.5f), out(static_cast<std::size_t>(rows * columns));
  const std::vector<std::int8_t> a(scale.size(), 3);
  GridRows grid = {codes.data(), scale.data(), scale.data(), columns,
                   inner,        type.group,   type.bits,    type.second};
  if (type.super) grid.super = {d.data(), d.data(), a.data(), a.data()};
  const QuantizedFormat format = format_for(grid);
  const auto aligned = [](std::vector<std::uint8_t>& memory, std::int64_t bytes) {
    memory.resize(static_cast<std::size_t>(bytes) + 64);
    return memory.data() + (64 - reinterpret_cast<std::uintptr_t>(memory.data()) % 64);
  };
  std::vector<std::uint8_t> packed, rounded;
  auto* weights = aligned(packed, quantized_bytes(columns, inner, format));
  quantized_pack(grid, format, weights);
  const RoundedRows in = rounded_rows(aligned(rounded, rounded_bytes(rows, inner)), rows, inner);
  round_rows({x.data(), inner, in}, variant);
  const QuantizedProduct call = {
      in, {weights, inner, columns, format}, nullptr, nullptr, out.data(), columns};
  for (auto _ : state) quantized_product(call, variant);
  count_rate(state, "OP/s", 2 * rows * inner * columns);
  count_rate(state, "weights B/s", quantized_bytes(columns, inner, format));
}

#if defined(__x86_64__)
// What one thread can do at most: 16 independent chains of vpdpbusd on registers.
__attribute__((target("avx512f,avx512vnni"))) void integer_peak(State& state) {
  constexpr int kChains = 16, kRounds = 1 << 12;
  __m512i sums[kChains] = {};
  const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(2);
  for (auto _ : state) {
    for (int round = 0; round < kRounds; ++round) {
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
#pragma GCC unroll 16
      for (int i = 0; i < kChains; ++i) asm volatile("" : "+v"(sums[i]));
    }
  }
  count_rate(state, "OP/s", 2LL * 64 * kChains * kRounds);
}
#endif

constexpr std::int64_t kRows = 256;
constexpr std::int64_t kHidden = 1536;
constexpr std::int64_t kVocabulary = 49152;

void norm(State& state, const Variant& variant) {
  const auto x = noise(kRows * kHidden, 1), weight = noise(kHidden, 2);
  std::vector<float> out(x.size());
  const RmsNorm call = {x.data(), weight.data(), out.data(), kRows, kHidden, 1e-5f};
  for (auto _ : state) rms_norm(call, variant);
  count_rate(state, "B/s", 8 * kRows * kHidden);
}

void rotation(State& state, const Variant& variant) {
  auto x = noise(kRows * kHidden, 1);
  auto cosines = noise(kRows * 32, 2), sines = cosines;
  for (float& angle : cosines) angle = std::cos(angle);
  for (float& angle : sines) angle = std::sin(angle);
  const Rotate call = {.states = x.data(),
                       .token_stride = kHidden,
                       .tokens = kRows,
                       .heads = kHidden / 64,
                       .head_dim = 64,
                       .rotary_dim = 64,
                       .cosines = cosines.data(),
                       .sines = sines.data(),
                       .table_positions = kRows};
  for (auto _ : state) rotate(call, variant);
  count_rate(state, "B/s", 8 * kRows * kHidden);
}

void gate(State& state, const Variant& variant, Activation activation) {
  const auto x = noise(kRows * kHidden, 1), up = noise(kRows * kHidden, 2);
  std::vector<float> out(x.size());
  const GatedActivation call = {x.data(), up.data(), out.data(), kRows,     kHidden,
                                kHidden,  kHidden,   kHidden,    activation};
  for (auto _ : state) gated_activation(call, variant);
  count_rate(state, "B/s", 12 * kRows * kHidden);
}

void stats(State& state, const Variant& variant) {
  const auto logits = noise(64 * kVocabulary, 1);
  std::vector<LogitStats> out(64);
  const LogSoftmaxStats call = {logits.data(), 64, kVocabulary, kVocabulary, nullptr, out.data()};
  for (auto _ : state) log_softmax_stats(call, variant);
  count_rate(state, "B/s", 4 * 64 * kVocabulary);
}

void kl(State& state, const Variant& variant) {
  const auto teacher = noise(64 * kVocabulary, 1), student = noise(64 * kVocabulary, 2);
  std::vector<LogitStats> t(64), s(64);
  log_softmax_stats({teacher.data(), 64, kVocabulary, kVocabulary, nullptr, t.data()});
  log_softmax_stats({student.data(), 64, kVocabulary, kVocabulary, nullptr, s.data()});
  std::vector<RowDivergence> out(64);
  const Divergence call = {teacher.data(), student.data(), 64,       kVocabulary, kVocabulary,
                           kVocabulary,    t.data(),       s.data(), out.data()};
  for (auto _ : state) divergence(call, variant);
  count_rate(state, "B/s", 8 * 64 * kVocabulary);
}

void conversion(State& state, const Variant& variant, bool brain, bool narrow) {
  constexpr std::int64_t kCount = 1 << 20;
  auto wide = noise(kCount, 1);
  std::vector<std::uint16_t> half(kCount);
  for (auto _ : state) {
    if (brain && narrow) f32_to_bf16(wide.data(), half.data(), kCount, variant);
    if (brain && !narrow) bf16_to_f32(half.data(), wide.data(), kCount, variant);
    if (!brain && narrow) f32_to_f16(wide.data(), half.data(), kCount, variant);
    if (!brain && !narrow) f16_to_f32(half.data(), wide.data(), kCount, variant);
  }
  count_rate(state, "B/s", 6 * kCount);
}

void blocks(State& state, GgmlBlock type, bool quantize) {
  auto values = noise(kRows * kHidden, 1);
  std::vector<std::uint8_t> bytes(
      static_cast<std::size_t>(kRows * kHidden / 32 * ggml_block_bytes(type)));
  ggml_quantize(type, values.data(), kRows * kHidden, bytes.data());
  for (auto _ : state) {
    if (quantize) ggml_quantize(type, values.data(), kRows * kHidden, bytes.data());
    if (!quantize) ggml_dequantize(type, bytes.data(), kRows * kHidden, values.data());
  }
  count_rate(state, "values/s", kRows * kHidden);
}

void register_variant(const Variant& v) {
  const std::string isa = std::string(v.name) + "/";
  const auto add = [&](const std::string& name, auto... arguments) {
    benchmark::RegisterBenchmark((isa + name).c_str(), arguments...)->UseRealTime();
  };
  add("attention_prefill_9x3_1024x64", [&v](State& s) { attention(s, v, 9, 3, 1024, 1024, 64); });
  add("attention_prefill_8x8_1024x64", [&v](State& s) { attention(s, v, 8, 8, 1024, 1024, 64); });
  add("attention_prefill_8x2_512x128", [&v](State& s) { attention(s, v, 8, 2, 512, 512, 128); });
  add("attention_decode_9x3_1024x64", [&v](State& s) { attention(s, v, 9, 3, 1, 1024, 64); });
  add("product_512x576x1536", [&v](State& s) { product(s, v, 512, 576, 1536); });
  add("product_512x1536x576", [&v](State& s) { product(s, v, 512, 1536, 576); });
  for (const auto& [type, name] :
       {std::pair{PackType::f32, "f32"}, {PackType::f16, "f16"}, {PackType::bf16, "bf16"}}) {
    const std::string held = std::string("_") + name;
    add("product_512x2048x5632" + held,
        [&v, type](State& s) { product(s, v, 512, 2048, 5632, type); });
    add("product_1x4096x32768" + held,
        [&v, type](State& s) { product(s, v, 1, 4096, 32768, type); });
  }
  for (const CodesOf& type : kCodesOf) {
    const auto product_of = [&](std::int64_t rows, std::int64_t inner, std::int64_t columns) {
      const std::string shape =
          std::to_string(rows) + 'x' + std::to_string(inner) + 'x' + std::to_string(columns);
      add("quantized_" + shape + type.suffix, [&v, type, rows, inner, columns](State& s) {
        quantized(s, v, type, rows, inner, columns);
      });
    };
    product_of(512, 2048, 5632);
    if (!type.super) product_of(512, 576, 1536);
    product_of(5, 2048, 5632);
    product_of(1, 4096, 32768);
  }
  add("rms_norm", [&v](State& s) { norm(s, v); });
  add("rotate", [&v](State& s) { rotation(s, v); });
  add("silu", [&v](State& s) { gate(s, v, Activation::silu); });
  add("gelu_tanh", [&v](State& s) { gate(s, v, Activation::gelu_tanh); });
  add("gelu_erf", [&v](State& s) { gate(s, v, Activation::gelu_erf); });
  add("log_softmax_stats", [&v](State& s) { stats(s, v); });
  add("divergence", [&v](State& s) { kl(s, v); });
  add("f16_to_f32", [&v](State& s) { conversion(s, v, false, false); });
  add("f32_to_f16", [&v](State& s) { conversion(s, v, false, true); });
  add("bf16_to_f32", [&v](State& s) { conversion(s, v, true, false); });
  add("f32_to_bf16", [&v](State& s) { conversion(s, v, true, true); });
}

void register_all() {
  for (const Variant& variant : variants()) {
    if (variant.supported()) register_variant(variant);
  }
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512vnni")) {
    benchmark::RegisterBenchmark("integer_peak_of_a_thread", integer_peak)->UseRealTime();
  }
#endif
  const std::pair<const char*, GgmlBlock> types[] = {
      {"q8_0", GgmlBlock::q8_0}, {"q4_0", GgmlBlock::q4_0}, {"q4_1", GgmlBlock::q4_1}};
  for (const auto& [name, type] : types) {
    benchmark::RegisterBenchmark((std::string("quantize_") + name).c_str(),
                                 [type](State& s) { blocks(s, type, true); });
    benchmark::RegisterBenchmark((std::string("dequantize_") + name).c_str(),
                                 [type](State& s) { blocks(s, type, false); });
  }
}

}  // namespace
}  // namespace attar::kernels

int main(int argc, char** argv) {
  attar::kernels::register_all();
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
