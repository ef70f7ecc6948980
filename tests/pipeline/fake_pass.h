// A registry with passes that do nothing, for tests of what stands around them.
#pragma once

#include "compress/calibrate/blockwise.h"
#include "compress/core/pass.h"

namespace attar {

struct FakeConfig {
  int bits = 4;
  template <class Visit>
  static void fields(Visit&& visit) {
    visit("bits", &FakeConfig::bits, Range{2, 8}, "Bits.");
  }
};

template <bool kCalibrates>
class FakePass final : public BlockwisePass {
 public:
  using Config = FakeConfig;
  static constexpr std::string_view kName = kCalibrates ? "fake.needy" : "fake.plain";
  static constexpr std::string_view kSummary = "Nothing.";

  explicit FakePass(FakeConfig config) : config_(config) {}
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.calibration = kCalibrates}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig&) const override { return {}; }
  std::int64_t working_bytes(const ModelConfig&) const override { return 0; }
  void run_block(BlockWork&) const override {}

 private:
  FakeConfig config_;
};

inline const PassRegistry& fake_registry() {
  static const PassRegistry registry = [] {
    PassRegistry passes;
    passes.add<FakePass<true>>();
    passes.add<FakePass<false>>();
    return passes;
  }();
  return registry;
}

}  // namespace attar
