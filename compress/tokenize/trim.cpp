#include "compress/tokenize/trim.h"

#include <algorithm>
#include <queue>

#include "compress/core/errors.h"

namespace attar {
namespace {

// Chooses by taking away; `parts` leads from a token to those it is made from.
class Chooser {
 public:
  Chooser(const Tokenizer& tokenizer, TokenUse use, std::int64_t rows)
      : use_(std::move(use)),
        rows_(rows),
        kept_(use_.counts.size()),
        followed_(use_.counts.size()),
        users_(use_.counts.size()) {
    for (std::size_t id = 0; id < kept_.size(); ++id) {
      const auto token = static_cast<TokenId>(id);
      require(token < rows || use_.counts[id] == 0, "vocabulary", "the text uses token '",
              tokenizer.token(token), "' (id ", id, "), and the embedding has ", rows, " rows");
      if (token >= rows || tokenizer.token(token).empty()) continue;
      if (tokenizer.is_basic(token)) keep(token, Kept::kBasic);
    }
    basic_ = count_;
  }

  // With everything on the way to it.
  void keep_with_parts(TokenId id, bool always) {
    std::vector<TokenId> open = {id};
    while (!open.empty()) {
      const TokenId next = open.back();
      open.pop_back();
      keep(next, always ? Kept::kAlways : Kept::kForText);
      if (followed_[static_cast<std::size_t>(next)]) continue;
      followed_[static_cast<std::size_t>(next)] = true;
      const auto& parts = use_.parts[static_cast<std::size_t>(next)];
      open.insert(open.end(), parts.begin(), parts.end());
    }
  }

  void keep_used() {
    for (std::size_t id = 0; id < kept_.size(); ++id) {
      if (use_.counts[id] > 0) keep_with_parts(static_cast<TokenId>(id), false);
    }
  }

  // Takes the least used away until all are used `min_count` times and `size` (0: any) are left.
  std::int64_t shrink(std::int64_t min_count, std::int64_t size) {
    for (std::size_t id = 0; id < kept_.size(); ++id) {
      if (kept_[id] == Kept::kNo) continue;
      for (const TokenId part : use_.parts[id]) ++users_[static_cast<std::size_t>(part)];
    }
    const auto less_used = [this](TokenId a, TokenId b) {  // the queue gives the largest
      const std::int64_t of_a = count_of(a), of_b = count_of(b);
      return of_a != of_b ? of_a > of_b : a < b;
    };
    std::priority_queue<TokenId, std::vector<TokenId>, decltype(less_used)> leaves(less_used);
    const auto offer = [&](TokenId id) {
      const auto at = static_cast<std::size_t>(id);
      if (kept_[at] == Kept::kForText && users_[at] == 0) leaves.push(id);
    };
    for (std::size_t id = 0; id < kept_.size(); ++id) offer(static_cast<TokenId>(id));
    std::int64_t lost = 0;
    while (!leaves.empty() && (count_of(leaves.top()) < min_count || (size > 0 && count_ > size))) {
      const TokenId gone = leaves.top();
      leaves.pop();
      kept_[static_cast<std::size_t>(gone)] = Kept::kNo;
      --count_;
      ++lost;
      for (const TokenId part : use_.parts[static_cast<std::size_t>(gone)]) {
        const auto at = static_cast<std::size_t>(part);
        use_.counts[at] += count_of(gone);
        --users_[at];
        offer(part);
      }
    }
    return lost;
  }

  std::int64_t basic() const { return basic_; }
  std::int64_t count() const { return count_; }
  std::vector<std::int64_t> kept() const {
    std::vector<std::int64_t> ids;
    for (std::size_t id = 0; id < kept_.size(); ++id) {
      if (kept_[id] != Kept::kNo) ids.push_back(static_cast<std::int64_t>(id));
    }
    return ids;
  }

 private:
  enum class Kept : std::uint8_t { kNo, kForText, kAlways, kBasic };

  std::int64_t count_of(TokenId id) const { return use_.counts[static_cast<std::size_t>(id)]; }

  void keep(TokenId id, Kept why) {
    Kept& now = kept_[static_cast<std::size_t>(id)];
    if (now != Kept::kNo || id >= rows_) return;
    now = why;
    ++count_;
  }

  TokenUse use_;
  std::int64_t rows_;
  std::vector<Kept> kept_;
  std::vector<bool> followed_;       // its parts are kept
  std::vector<std::int64_t> users_;  // kept tokens that are made from this one
  std::int64_t count_ = 0, basic_ = 0;
};

}  // namespace

void TokenUse::add(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<TokenId> ids = tokenizer.encode_noting(text, parts);
  for (const TokenId id : ids) ++counts[static_cast<std::size_t>(id)];
  tokens += static_cast<std::int64_t>(ids.size());
}

TokenChoice choose_tokens(const Tokenizer& tokenizer, TokenUse use, const KeepRule& rule,
                          std::int64_t rows) {
  const std::int64_t first = std::min({rule.first, rows, tokenizer.vocabulary_size()});
  for (std::int64_t id = 0; id < first; ++id) {  // what leads to them, whether the text has them
    const TokenId token = static_cast<TokenId>(id);
    tokenizer.encode_noting(tokenizer.decode({&token, 1}, false), use.parts);
  }
  Chooser chooser(tokenizer, std::move(use), rows);
  for (std::int64_t id = 0; id < first; ++id) {
    const auto token = static_cast<TokenId>(id);
    if (!tokenizer.token(token).empty()) chooser.keep_with_parts(token, true);
  }
  const std::int64_t always = chooser.count();
  require<UsageError>(rule.size == 0 || rule.size >= always, "vocabulary", "size must be at least ",
                      always, " (", chooser.basic(),
                      " tokens that any text needs, and `first`), got ", rule.size);
  chooser.keep_used();
  TokenChoice choice;
  choice.text = chooser.count() - always;
  choice.lost = chooser.shrink(rule.min_count, rule.size);
  choice.text -= choice.lost;
  choice.basic = chooser.basic();
  choice.kept = chooser.kept();
  return choice;
}

std::optional<std::int64_t> place_of(KeptTokens kept, std::int64_t id) {
  if (kept.empty()) return id;
  const auto found = std::lower_bound(kept.begin(), kept.end(), id);
  if (found == kept.end() || *found != id) return std::nullopt;
  return found - kept.begin();
}

}  // namespace attar
