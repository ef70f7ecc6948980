#include "compress/kernels/variants.h"

#ifdef ATTAR_HAVE_AVX2
#include <cpuid.h>
#endif
#ifdef ATTAR_HAVE_NEON
#ifdef __APPLE__
#include <sys/sysctl.h>
#else
#include <sys/auxv.h>
#endif
#endif
#ifdef ATTAR_HAVE_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace attar::kernels {

// Instruction sets; their members stand in simd/, which this file must not see.
struct Portable;
struct Avx2;
struct Avx512;
struct Neon;

// Instantiated by <kernel>/<isa>.cpp from <kernel>/body.h.
template <class S>
void rms_norm_rows(const RmsNorm&, std::int64_t, std::int64_t);
template <class S>
void add_rms_norm_rows(const AddRmsNorm&, std::int64_t, std::int64_t);
template <class S>
void rms_norm_gradient_rows(const RmsNormGradient&, std::int64_t, std::int64_t);
template <class S>
void rotate_rows(const Rotate&, std::int64_t, std::int64_t);
template <class S>
void gated_activation_rows(const GatedActivation&, std::int64_t, std::int64_t);
template <class S>
void gated_activation_gradient_rows(const GatedActivationGradient&, std::int64_t, std::int64_t);
template <class S>
void attend_task(const CausalAttention&, const AttentionTask&);
template <class S>
void weigh_attention(const AttentionWeights&);
template <class S>
void log_softmax_stats_rows(const LogSoftmaxStats&, std::int64_t, std::int64_t);
template <class S>
void divergence_rows(const Divergence&, std::int64_t, std::int64_t);
template <class S>
void response_loss_row(const ResponseLoss&, std::int64_t, float*);
template <class S>
void f16_to_f32_all(const void*, float*, std::int64_t);
template <class S>
void bf16_to_f32_all(const void*, float*, std::int64_t);
template <class S>
void f32_to_f16_all(const float*, void*, std::int64_t);
template <class S>
void f32_to_bf16_all(const float*, void*, std::int64_t);
template <class S>
void block_search_groups(const BlockSearch&, std::int64_t, std::int64_t);
template <class S>
void group_prices_groups(const GroupPrices&, std::int64_t, std::int64_t);
template <class S>
float encode_blocks_range(const EncodeBlocks&, std::int64_t, std::int64_t);

template <class S>
int pack_panel_of(const PackMatrix&, std::int64_t);
template <class S>
void packed_product_task(const PackedProduct&, const PackedTask&);
template <class S>
void packed_finish_task(const PackedFinish&, const PackedTask&);
template <class S>
void transpose_rows(const Transpose&);

void round_rows_portable(const RoundRows&, std::int64_t, std::int64_t);
void round_rows_avx2(const RoundRows&, std::int64_t, std::int64_t);
void round_rows_avx512(const RoundRows&, std::int64_t, std::int64_t);
void round_rows_neon(const RoundRows&, std::int64_t, std::int64_t);
void quantized_product_portable(const QuantizedProduct&, const QuantizedTask&);
void quantized_product_avx2(const QuantizedProduct&, const QuantizedTask&);
void quantized_product_avx_vnni(const QuantizedProduct&, const QuantizedTask&);
void quantized_product_avx512_vnni(const QuantizedProduct&, const QuantizedTask&);
void quantized_product_amx(const QuantizedProduct&, const QuantizedTask&);
void quantized_product_neon(const QuantizedProduct&, const QuantizedTask&);
void quantized_product_neon_dot(const QuantizedProduct&, const QuantizedTask&);

int pack_panel_amx(const PackMatrix&, std::int64_t);
void packed_product_amx(const PackedProduct&, const PackedTask&);
void packed_finish_amx(const PackedFinish&, const PackedTask&);

namespace {

template <class S>
constexpr Variant variant_of(std::string_view name, bool (*supported)(),
                             void (*round_rows)(const RoundRows&, std::int64_t, std::int64_t),
                             void (*quantized_product)(const QuantizedProduct&,
                                                       const QuantizedTask&)) {
  return {.name = name,
          .supported = supported,
          .rms_norm = rms_norm_rows<S>,
          .add_rms_norm = add_rms_norm_rows<S>,
          .rms_norm_gradient = rms_norm_gradient_rows<S>,
          .rotate = rotate_rows<S>,
          .gated_activation = gated_activation_rows<S>,
          .gated_activation_gradient = gated_activation_gradient_rows<S>,
          .causal_attention = attend_task<S>,
          .attention_weights = weigh_attention<S>,
          .log_softmax_stats = log_softmax_stats_rows<S>,
          .divergence = divergence_rows<S>,
          .response_loss = response_loss_row<S>,
          .f16_to_f32 = f16_to_f32_all<S>,
          .bf16_to_f32 = bf16_to_f32_all<S>,
          .f32_to_f16 = f32_to_f16_all<S>,
          .f32_to_bf16 = f32_to_bf16_all<S>,
          .block_search = block_search_groups<S>,
          .group_prices = group_prices_groups<S>,
          .encode_blocks = encode_blocks_range<S>,
          .round_rows = round_rows,
          .quantized_product = quantized_product,
          .pack_panel = pack_panel_of<S>,
          .packed_product = packed_product_task<S>,
          .packed_finish = packed_finish_task<S>,
          .transpose = transpose_rows<S>};
}

#ifdef ATTAR_HAVE_AVX2
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("f16c");
}

// AVX-VNNI, which the compiler's own test does not know.
bool has_avx_vnni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1) != 0;
}

constexpr Variant avx2() {
  return variant_of<Avx2>("avx2", has_avx2, round_rows_avx2, quantized_product_avx2);
}
constexpr Variant avx_vnni() {
  return variant_of<Avx2>("avx_vnni", has_avx_vnni, round_rows_avx2, quantized_product_avx_vnni);
}
#endif
#ifdef ATTAR_HAVE_AVX512
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
bool has_avx512_vnni() { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

constexpr Variant avx512() {
  return variant_of<Avx512>("avx512", has_avx512, round_rows_avx512, quantized_product_avx2);
}
constexpr Variant avx512_vnni() {
  return variant_of<Avx512>("avx512_vnni", has_avx512_vnni, round_rows_avx512,
                            quantized_product_avx512_vnni);
}
#endif

#ifdef ATTAR_HAVE_AMX
// Linux hands out the tile registers on request, to a process once for all of its threads.
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_amx() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!has_avx512_vnni() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  // AMX-TILE, AMX-BF16, AMX-INT8
  const bool tiles = (d >> 24 & 1) != 0 && (d >> 22 & 1) != 0 && (d >> 25 & 1) != 0;
  if (!tiles || !__get_cpuid_count(7, 1, &a, &b, &c, &d)) return false;
  const bool conversions = (a >> 5 & 1) != 0;  // AVX512-BF16
  static const bool permitted = conversions && may_use_tiles();
  return permitted;
}

// The kernels of AVX-512, but for products of matrices.
constexpr Variant with_tiles(Variant variant) {
  variant.name = "amx";
  variant.supported = has_amx;
  variant.splits = true;
  variant.pack_panel = pack_panel_amx;
  variant.packed_product = packed_product_amx;
  variant.packed_finish = packed_finish_amx;
  variant.quantized_product = quantized_product_amx;
  return variant;
}
#endif

#ifdef ATTAR_HAVE_NEON
bool has_dot_products() {
#ifdef __APPLE__
  int there = 0;
  std::size_t size = sizeof there;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &there, &size, nullptr, 0) == 0 && there != 0;
#else
  constexpr unsigned long kDotProducts = 1UL << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kDotProducts) != 0;
#endif
}

constexpr Variant neon() {
  return variant_of<Neon>("neon", [] { return true; }, round_rows_neon, quantized_product_neon);
}
constexpr Variant neon_dot() {
  return variant_of<Neon>("neon_dot", has_dot_products, round_rows_neon,
                          quantized_product_neon_dot);
}
#endif

constexpr Variant portable() {
  Variant variant = variant_of<Portable>(
      "portable", [] { return true; }, round_rows_portable, quantized_product_portable);
  variant.widens_slowly = true;
  return variant;
}

constexpr Variant kVariants[] = {
#ifdef ATTAR_HAVE_AMX
    with_tiles(avx512_vnni()),
#endif
#ifdef ATTAR_HAVE_AVX512
    avx512_vnni(),
    avx512(),
#endif
#ifdef ATTAR_HAVE_AVX2
    avx_vnni(),
    avx2(),
#endif
#ifdef ATTAR_HAVE_NEON
    neon_dot(),
    neon(),
#endif
    portable(),
};

}  // namespace

std::span<const Variant> variants() { return kVariants; }

const Variant& choose_variant(std::string_view forced) {
  std::string known;
  for (const Variant& variant : kVariants) {
    if (forced.empty() ? variant.supported() : variant.name == forced) {
      if (variant.supported()) return variant;
      throw std::invalid_argument("[kernels] ATTAR_ISA=" + std::string(forced) +
                                  " is more than this processor can do; unset it");
    }
    known += (known.empty() ? "" : ", ") + std::string(variant.name);
  }
  throw std::invalid_argument("[kernels] unknown ATTAR_ISA '" + std::string(forced) +
                              "'; known in this build: " + known);
}

const Variant& active_variant() {
  static const Variant& chosen = []() -> const Variant& {
    const char* forced = std::getenv("ATTAR_ISA");
    return choose_variant(forced ? forced : "");
  }();
  return chosen;
}

std::string_view active_isa() { return active_variant().name; }

}  // namespace attar::kernels
