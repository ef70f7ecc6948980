// Smaller vocabularies: rows of embedding and head that a text does not need go, and the tokenizer
// with them.
#pragma once

#include <string>
#include <vector>

#include "compress/calibrate/model_pass.h"
#include "compress/tokenize/trim.h"

namespace attar {

// Rows `kept` of embedding and head; what stays keeps its values and its type or grid.
OuterWeights keep_rows(const OuterWeights& outer, KeptTokens kept);

struct VocabularyConfig {
  std::vector<std::string> text;
  std::string separator;
  std::int64_t min_count = 1;
  std::int64_t size = 0;
  std::int64_t first = 0;

  template <class Visit>
  static void fields(Visit&& visit) {
    using C = VocabularyConfig;
    constexpr std::int64_t kMost = std::int64_t{1} << 40;
    visit("text", &C::text, Any{},
          "Files whose pieces stay: UTF-8, or *.jsonl with {\"text\"} or {\"prompt\", "
          "\"completion\"} a line.");
    visit("separator", &C::separator, Any{}, "Cuts a text file into documents; empty: none.");
    visit("min_count", &C::min_count, Range<std::int64_t>{1, kMost},
          "Tokens that the text uses less often go. Above 1 the text is cut differently.");
    visit("size", &C::size, Range<std::int64_t>{0, 1 << 22},
          "Tokens at most: those used least go. 0: all that the text needs.");
    visit("first", &C::first, Range<std::int64_t>{0, 1 << 22},
          "Tokens with an id below this stay whatever the text. Where ids stand in the order of "
          "merges, these are what training with so small a vocabulary would have given.");
  }
};

class VocabularyPass final : public ModelPass {
 public:
  using Config = VocabularyConfig;
  static constexpr std::string_view kName = "prune.vocab";
  static constexpr std::string_view kSummary =
      "Fewer tokens: the rows that a text needs, with every merge on the way to them, all bytes "
      "and "
      "all special tokens; lossless on that text. The tokenizer is trimmed to match.";

  explicit VocabularyPass(VocabularyConfig config);
  std::string_view name() const override { return kName; }
  Needs needs() const override { return {.tokenizer = true}; }
  nlohmann::json options() const override { return write_fields(config_); }
  std::vector<PlannedLayer> plan(const ModelConfig& config) const override;
  PlannedRows plan_rows(const ModelConfig& config) const override;
  ModelConfig shape_after(const ModelConfig& config) const override;
  std::int64_t working_bytes(const ModelConfig& config) const override;
  void run(ModelWork& work) const override;

 private:
  TokenChoice choose(const ModelWork& work) const;
  void check_text(const ModelWork& work, const TokenChoice& choice) const;

  VocabularyConfig config_;
};

}  // namespace attar
