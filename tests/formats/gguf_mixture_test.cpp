#include "compress/formats/gguf_mixture.h"

#include <gtest/gtest.h>

#include <string>

namespace attar {
namespace {

using io::GgmlType;

// Letters of the types in kWritten.
char letter(GgmlType type) {
  switch (type) {
    case GgmlType::q8_0:
      return '8';
    case GgmlType::q4_0:
      return '0';
    case GgmlType::q5_0:
      return '5';
    case GgmlType::q5_1:
      return 'f';
    case GgmlType::iq4_nl:
      return 'n';
    case GgmlType::iq4_xs:
      return 'x';
    case GgmlType::q3_k:
      return 'c';
    case GgmlType::q4_k:
      return 'd';
    case GgmlType::q5_k:
      return 'e';
    case GgmlType::q6_k:
      return 'g';
    default:
      return '?';
  }
}

// What llama_model_quantize (ggml 0.25.3) wrote for SmolLM2-135M: 30 blocks, rows of 576 (down:
// 1536), 9 heads on 3. The embedding, tied, was Q8_0 in all of them.
struct Written {
  const char* name;
  const char* value;
  const char* output;
  const char* down;
  char others;
};
constexpr Written kWritten[] = {
    {"IQ4_NL", "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
     "eeennnnnnnnnnnnnnnnnnnnnnnnnnn", 'n'},
    {"IQ4_XS", "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnn", "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnn",
     "eeexxxxxxxxxxxxxxxxxxxxxxxxxxx", 'n'},
    {"Q2_K", "000000000000000000000000000000", "000000000000000000000000000000",
     "cccccccccccccccccccccccccccccc", '0'},
    {"Q3_K_L", "ffffffffffffffffffffffffffffff", "ffffffffffffffffffffffffffffff",
     "eeeeeeeeeeeeeeeeeeeeeeeeeeeeee", '0'},
    {"Q3_K_M", "ff5555555555555555555555555555", "555555555555555555555555555555",
     "eddddddddddddddddddddddddddddd", '0'},
    {"Q4_K_M", "888558558558558558558558558888", "555555555555555555555555555555",
     "gggddgddgddgddgddgddgddgddgggg", '5'},
    {"Q4_K_S", "ffff55555555555555555555555555", "555555555555555555555555555555",
     "eeeddddddddddddddddddddddddddd", '5'},
    {"Q5_0", "555555555555555555555555555555", "555555555555555555555555555555",
     "555555555555555555555555555555", '5'},
    {"Q5_K_M", "888ff8ff8ff8ff8ff8ff8ff8ff8888", "ffffffffffffffffffffffffffffff",
     "gggeegeegeegeegeegeegeegeegggg", 'f'},
    {"Q6_K", "888888888888888888888888888888", "888888888888888888888888888888",
     "gggggggggggggggggggggggggggggg", '8'},
};

ModelConfig smollm2() {
  ModelConfig config;
  config.layers = 30;
  config.hidden = 576;
  config.ffn = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  config.tied_head = true;
  return config;
}

TEST(GgufMixtures, HaveTheTypesOfLlamaCppsOwnFiles) {
  const ModelConfig config = smollm2();
  for (const Written& written : kWritten) {
    const GgufMixture& mixture = *find_gguf_mixture(written.name);
    const auto letters = [&](Role role) {
      std::string found;
      for (std::int64_t i = 0; i < config.layers; ++i) {
        const GgmlType type = mixture_type(mixture, config, i, role);
        found += letter(fallback_type(type, shape_of(config, role).in));
      }
      return found;
    };
    EXPECT_EQ(letters(Role::kValue), written.value) << written.name;
    EXPECT_EQ(letters(Role::kOutput), written.output) << written.name;
    EXPECT_EQ(letters(Role::kDown), written.down) << written.name;
    for (const Role role : {Role::kQuery, Role::kKey, Role::kGate, Role::kUp}) {
      EXPECT_EQ(letters(role), std::string(30, written.others)) << written.name;
    }
    const GgmlType outer = mixture_outer_type(mixture, config, false);
    EXPECT_EQ(fallback_type(outer, 576), GgmlType::q8_0) << written.name;
  }
}

TEST(GgufMixtures, HaveTheirOwnTypeForAnEmbeddingBesideAHead) {
  ModelConfig config = smollm2();
  config.hidden = 2048;
  config.tied_head = false;
  const GgufMixture& mixture = *find_gguf_mixture("q4_k_m");
  EXPECT_EQ(mixture_outer_type(mixture, config, false), GgmlType::q4_k);
  EXPECT_EQ(mixture_outer_type(mixture, config, true), GgmlType::q6_k);
  EXPECT_EQ(find_gguf_mixture("Q9_K"), nullptr);
}

}  // namespace
}  // namespace attar
