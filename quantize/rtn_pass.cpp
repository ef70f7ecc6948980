#include "compress/calibrate/layer_walk.h"
#include "quantize/passes.h"
#include "quantize/rtn.h"

namespace attar {

RtnPass::RtnPass(RtnConfig config)
    : config_(std::move(config)), rules_(config_, std::string(kName)) {}

std::vector<PlannedLayer> RtnPass::plan(const ModelConfig& config) const {
  return rules_.plan(config, config_.search ? "rtn-search" : "rtn");
}

std::int64_t RtnPass::working_bytes(const ModelConfig& config) const {
  return 3 * 4 * config.hidden * config.ffn;  // one weight, its codes, one temporary
}

void RtnPass::run_block(BlockWork& work) const {
  for (const Role role : roles_of(work.block)) {
    const auto since = std::chrono::steady_clock::now();
    const SchemeDecision decision = rules_.decide(work.index, role, &work.config);
    if (!decision.scheme) {
      record_skipped(work, role, decision.rule);
      continue;
    }
    work.context.check_stop();
    RtnResult result =
        rtn_quantize_weight(work.block[role].weight, *decision.scheme, {.search = config_.search});
    record_changed(work, role, std::move(result.weight), "rtn " + describe(*decision.scheme),
                   result.relative_error, result.relative_error, since);
  }
}

}  // namespace attar
