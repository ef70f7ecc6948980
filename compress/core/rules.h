// Which layers a pass touches and how: by name pattern or by role.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "compress/core/config.h"

namespace attar {

// A pattern names layers by role ("down"), by name inside the block ("mlp.*"), or by full name
// ("model.layers.[0-3].self_attn.?_proj"): shell wildcards * ? [..], the whole name must match.
// Throws UsageError for an empty pattern.
class LayerPattern {
 public:
  explicit LayerPattern(std::string text);
  bool matches(std::int64_t block, Role role) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Throws UsageError naming the first pattern that matches no layer of the model.
void require_matches(const std::vector<std::string>& patterns, const ModelConfig& config,
                     std::string_view where);

// The first pattern that matches, or nullptr.
const std::string* first_match(const std::vector<std::string>& patterns, std::int64_t block,
                               Role role);

}  // namespace attar
