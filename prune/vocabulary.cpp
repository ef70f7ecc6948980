#include "prune/vocabulary.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <sstream>

#include "compress/core/errors.h"
#include "compress/formats/model_file.h"
#include "compress/formats/weight_rows.h"
#include "compress/tokenize/documents.h"

namespace attar {
namespace {

// How two tokenizers cut one text.
struct Comparison {
  std::int64_t before = 0, after = 0;  // tokens
  std::int64_t words = 0, bytes = 0;
  std::int64_t different = 0;  // documents
};

std::int64_t words_of(std::string_view text) {
  std::int64_t words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    words += !space && !inside ? 1 : 0;
    inside = !space;
  }
  return words;
}

void compare(const Tokenizer& before, const Tokenizer& after, KeptTokens kept,
             std::string_view text, Comparison& found) {
  const std::vector<TokenId> was = before.encode(text), is = after.encode(text);
  found.before += std::ssize(was);
  found.after += std::ssize(is);
  found.words += words_of(text);
  found.bytes += std::ssize(text);
  const bool same = std::equal(was.begin(), was.end(), is.begin(), is.end(),
                               [&](TokenId a, TokenId b) { return place_of(kept, a) == b; });
  found.different += same ? 0 : 1;
}

std::string told(const Comparison& found) {
  std::ostringstream text;
  text.precision(4);
  const auto each_word = [&](std::int64_t tokens) {
    return static_cast<double>(tokens) /
           static_cast<double>(std::max<std::int64_t>(1, found.words));
  };
  text << found.before << " tokens before and " << found.after << " after ("
       << each_word(found.before) << " and " << each_word(found.after) << " a word, " << found.bytes
       << " bytes)";
  return text.str();
}

}  // namespace

OuterWeights keep_rows(const OuterWeights& outer, KeptTokens kept) {
  at::Tensor rows = at::empty({std::ssize(kept)}, at::kLong);
  std::copy(kept.begin(), kept.end(), rows.mutable_data_ptr<std::int64_t>());
  OuterWeights left{select_rows(outer.embedding, rows), outer.final_norm, std::nullopt};
  if (outer.head) left.head = select_rows(*outer.head, rows);
  return left;
}

VocabularyPass::VocabularyPass(VocabularyConfig config) : config_(std::move(config)) {
  require<UsageError>(!config_.text.empty() || config_.first > 0, kName,
                      "neither text nor first says which tokens stay; name a file of text that the "
                      "model is for");
}

std::vector<PlannedLayer> VocabularyPass::plan(const ModelConfig& config) const {
  std::vector<PlannedLayer> planned;
  for (std::int64_t block = 0; block < config.layers; ++block) {
    for (const Role role : kRoles) {
      planned.push_back({block, role, false, "only embedding and head", "unchanged"});
      planned.back().keeps_zeros = true;
    }
  }
  return planned;
}

PlannedRows VocabularyPass::plan_rows(const ModelConfig& config) const {
  if (config_.text.empty()) {
    return {"the first " + std::to_string(std::min(config_.first, config.vocabulary)) +
                " tokens stay, with bytes and special tokens",
            true};
  }
  std::string most = "decided by the text";
  if (config_.size > 0) {
    most += ", at most " + std::to_string(std::min(config_.size, config.vocabulary));
  }
  return {"tokens that stay: " + most, true};
}

ModelConfig VocabularyPass::shape_after(const ModelConfig& config) const {
  ModelConfig after = config;
  if (config_.size > 0) after.vocabulary = std::min(config.vocabulary, config_.size);
  return after;
}

std::int64_t VocabularyPass::working_bytes(const ModelConfig& config) const {
  return 4 * config.vocabulary * config.hidden * (config.tied_head ? 1 : 2);
}

TokenChoice VocabularyPass::choose(const ModelWork& work) const {
  const Tokenizer& tokenizer = *work.tokenizer;
  TokenUse use(tokenizer);
  if (!config_.text.empty()) {
    for_each_document({config_.text, config_.separator},
                      [&](std::string_view prompt, std::string_view text) {
                        work.context.check_stop();
                        use.add(tokenizer, prompt);
                        use.add(tokenizer, text);
                      });
  }
  const KeepRule rule{config_.min_count, config_.size, config_.first};
  return choose_tokens(tokenizer, std::move(use), rule, work.input.config().vocabulary);
}

void VocabularyPass::check_text(const ModelWork& work, const TokenChoice& choice) const {
  if (config_.text.empty()) return;
  const auto trimmed = tokenizer_of(work.output);
  Comparison found;
  for_each_document({config_.text, config_.separator},
                    [&](std::string_view prompt, std::string_view text) {
                      work.context.check_stop();
                      compare(*work.tokenizer, *trimmed, choice.kept, prompt, found);
                      compare(*work.tokenizer, *trimmed, choice.kept, text, found);
                    });
  PassEvent event{"model.embed_tokens", "lossless", "", false};
  if (found.different == 0) {
    event.text = "the text is cut into the same pieces: " + told(found);
  } else if (choice.lost > 0) {
    event.kind = "not_lossless";
    event.text = std::to_string(choice.lost) +
                 " tokens that the text uses went for min_count or size: " + told(found);
  } else {
    event.kind = "pieces_differ";
    event.fallback = true;
    event.text = std::to_string(found.different) +
                 " documents are cut into other pieces although every token that they need is "
                 "there: " +
                 told(found);
    require<NumericRefusal>(!work.context.strict, kName, event.text,
                            "; the recipe is strict, so this is refused");
  }
  work.report.events.push_back(std::move(event));
}

void VocabularyPass::run(ModelWork& work) const {
  const TokenChoice choice = choose(work);
  const ModelConfig& config = work.input.config();
  OuterWeights before{work.input.embedding(), work.input.final_norm(), std::nullopt};
  if (!config.tied_head) before.head = work.input.head();
  const OuterWeights after = keep_rows(before, choice.kept);
  const std::string action =
      std::to_string(config.vocabulary) + " -> " + std::to_string(choice.kept.size()) + " rows";
  work.report.changed.push_back({"model.embed_tokens", action, stored_bytes(before.embedding),
                                 stored_bytes(after.embedding)});
  if (after.head) {
    work.report.changed.push_back(
        {"lm_head", action, stored_bytes(*before.head), stored_bytes(*after.head)});
  }
  std::ostringstream text;
  text << choice.kept.size() << " of " << config.vocabulary << " tokens stay: " << choice.basic
       << " that any text needs, " << choice.text << " for the text";
  work.report.events.push_back({"model.embed_tokens", "vocabulary", text.str(), false});
  work.output.keep_tokens(choice.kept);
  work.output.put_outer(after);
  check_text(work, choice);
}

}  // namespace attar
