#include <gtest/gtest.h>

#include "compress/pipeline/measure.h"
#include "compress/pipeline/memory_model.h"

namespace attar {
namespace {

eval::DivergenceSummary measured() {
  eval::DivergenceSummary found;
  found.mean.value = 0.10;
  found.p99.value = 1.0;
  found.same_top.value = 0.80;
  found.perplexity_ratio.value = 1.2;
  return found;
}

TEST(Gate, HoldsAtItsBoundAndBreaksBehindIt) {
  GateConfig gate;
  gate.kl_mean = 0.10;
  gate.top1 = 0.80;
  EXPECT_TRUE(judge(gate, measured()).holds);
  gate.kl_mean = 0.0999;
  EXPECT_EQ(judge(gate, measured()).broken.size(), 1U);
  gate.top1 = 0.81;
  gate.perplexity_ratio = 1.1;
  gate.kl_p99 = 0.5;
  EXPECT_EQ(judge(gate, measured()).broken.size(), 4U);
}

TEST(Gate, ANumberThatIsNoneBreaksIt) {
  GateConfig gate;
  gate.top1 = 0.5;
  eval::DivergenceSummary found = measured();
  found.same_top.value = std::nan("");
  EXPECT_FALSE(judge(gate, found).holds);
}

// SmolLM2-135M by hand: 576 wide, 1536 in the middle, 9 heads of 64 over 3 key-value heads.
TEST(MemoryModel, CountsTheParametersOfABlock) {
  ModelConfig config;
  config.layers = 30;
  config.hidden = 576;
  config.ffn = 1536;
  config.heads = 9;
  config.kv_heads = 3;
  config.head_dim = 64;
  EXPECT_EQ(block_parameters(config), 576 * (576 + 192 + 192 + 576 + 3 * 1536));
  // A sequence more costs its activations in two buffers.
  const CalibrationShape few{10, 512, 1}, more{11, 512, 1};
  EXPECT_EQ(blockwise_peak_bytes(config, more, 0, 0) - blockwise_peak_bytes(config, few, 0, 0),
            512 * 576 * 4 * 2);
}

}  // namespace
}  // namespace attar
