// The passes that learn.
#pragma once

namespace attar {

class PassRegistry;
void register_distill_passes(PassRegistry& registry);

}  // namespace attar
