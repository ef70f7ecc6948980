// What two states of a block have in common: whether steps that were computed still stand, and the
// hash that statistics are kept under.
#pragma once

#include <string>

#include "compress/core/block.h"

namespace attar {

// Whether two weights are the very same tensors: nothing was changed in between.
bool same_tensors(const Weight& a, const Weight& b);
bool same_tensors(const Linear& a, const Linear& b);

// Whether both blocks do the same up to the inputs of o, and up to the MLP.
bool same_mixing(const Block& a, const Block& b);
bool same_attention(const Block& a, const Block& b);

std::string hash_of(const Weight& weight);

// Hash of everything inside the block that the activations at `site` depend on, on top of
// `context`, which stands for what went before the block.
std::string hash_before(Site site, const std::string& context, const Block& block);

// The same for the block's outputs.
std::string hash_whole(const std::string& context, const Block& block);

}  // namespace attar
