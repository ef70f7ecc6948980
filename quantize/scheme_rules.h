// Which layers a quantizing pass touches and on which grid: the options that all of them share.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "compress/core/pass.h"
#include "compress/core/rules.h"

namespace attar {

// One grid, in a recipe's words.
struct GridConfig {
  int bits = 4;
  std::int64_t group_size = 64;
  bool symmetric = false;
  std::string scale_type = "f16";
  std::string type;
  // No option of a recipe: where quantize.fit has chosen, the grids of these layers by name, and of
  // no others, in place of all that is said here and in rules.
  std::map<std::string, QuantScheme> chosen = {};

  template <class Visit>
  static void grid_fields(Visit&& visit) {
    using C = GridConfig;
    visit("bits", &C::bits, Range{2, 8}, "Bits of a code.");
    visit("group_size", &C::group_size, Range<std::int64_t>{0, 1 << 20},
          "Input columns that share one scale; 0: the whole row.");
    visit("symmetric", &C::symmetric, Any{}, "One scale and no zero point a group.");
    visit("scale_type", &C::scale_type, OneOf{{"f16", "bf16", "f32"}},
          "What a scale is rounded to, before codes are computed.");
    visit("type", &C::type, Any{},
          "GGUF block type or stock mixture (Q5_0, IQ4_NL, Q4_K_M, ...), in place of the four "
          "above: the codes of its grids, with its fallbacks where 256 does not divide a row. Or a "
          "number format: FP8 (E4M3, a scale a row), MXFP4 (E2M1, a power of two for 32 columns), "
          "NF4 (a float16 scale for 64).");
  }
};

// The grid of rows of so many columns; of a mixture that of its base type.
QuantScheme grid_of(const GridConfig& config, std::int64_t columns);

// Throws UsageError unless `type` is empty, GGUF's or a number format.
void check_type(const std::string& type, const std::string& where);
// check_type, and that nothing is set that a type decides. Throws UsageError.
void check_grid(const GridConfig& config, const std::string& where);

// Options of every pass that rounds linear layers; a pass's Config derives from it and adds its
// own.
struct SchemeConfig : GridConfig {
  int activations = 0;
  std::vector<std::string> layers = {"*"};
  std::vector<std::string> skip;
  nlohmann::json rules = nlohmann::json::array();

  template <class Visit>
  static void scheme_fields(Visit&& visit) {
    grid_fields(visit);
    using C = SchemeConfig;
    visit("activations", &C::activations, Range{0, 8},
          "8: what a layer reads is rounded too, every token to 8 bits with a scale of its own, "
          "wherever the model runs (W8A8; quantize.smooth in front), beside type: FP8 to that type "
          "(FP8_DYNAMIC); 0: it is not.");
    visit("layers", &C::layers, Any{},
          "Layers to quantize: role (down), name (mlp.*) or full name, with * ? [..].");
    visit("skip", &C::skip, Any{}, "Layers to leave alone, of those.");
    visit("rules", &C::rules, Any{},
          "Exceptions, later ones win: [{layers: mlp.down_proj, bits: 8}, ...].");
  }
};

// The scheme, or, where it is a grid of GGUF whose blocks do not divide the columns, the one in its
// place (fallback_type).
QuantScheme fitted(const QuantScheme& scheme, std::int64_t columns);

// What the rules say of one layer.
struct SchemeDecision {
  std::optional<QuantScheme> scheme;  // absent: the layer stays as it is
  std::string rule;                   // the rule that decided
};

class SchemeRules {
 public:
  // Throws UsageError for a malformed rule.
  SchemeRules(const SchemeConfig& config, std::string where);

  // `config` is needed where a type is set, whose grids depend on widths and the number of blocks.
  SchemeDecision decide(std::int64_t block, Role role, const ModelConfig* config = nullptr) const;

  // One entry a linear layer. Throws UsageError for a pattern that matches nothing, DoesNotFit for
  // a group that does not divide the columns of its layer. Where `rounds` says that
  // another pass will round a layer (false), it is not held to the grid that stands here.
  std::vector<PlannedLayer> plan(
      const ModelConfig& config, std::string_view method,
      const std::function<bool(std::int64_t block, Role role)>& rounds = {}) const;

 private:
  struct Exception {
    std::vector<std::string> layers;
    SchemeConfig scheme;
  };
  QuantScheme scheme_of(const SchemeConfig& scheme, std::int64_t block, Role role,
                        const ModelConfig* config) const;

  void check_inputs(std::span<const PlannedLayer> block) const;

  SchemeConfig base_;
  std::string where_;
  std::vector<Exception> exceptions_;
};

}  // namespace attar
