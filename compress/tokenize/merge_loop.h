// The loop that both byte-pair encoders share: join neighbours, best pair first, until none is
// left.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar::tokenize {

// One symbol of a word, in a doubly linked list by index. `length` 0: joined to its left neighbour.
struct Symbol {
  TokenId id = -1;
  std::int32_t previous = -1;
  std::int32_t next = -1;
  std::uint32_t begin = 0;   // bytes of the word
  std::uint32_t length = 0;  // bytes
};

struct Merge {
  double priority = 0;  // lower goes first; of equal ones the leftmost
  TokenId id = -1;      // what the pair becomes
};

// Appends a symbol for the next `length` bytes and links it.
inline void append_symbol(std::vector<Symbol>& symbols, TokenId id, std::size_t length) {
  Symbol symbol{id, static_cast<std::int32_t>(symbols.size()) - 1, -1, 0,
                static_cast<std::uint32_t>(length)};
  if (!symbols.empty()) {
    symbol.begin = symbols.back().begin + symbols.back().length;
    symbols.back().next = static_cast<std::int32_t>(symbols.size());
  }
  symbols.push_back(symbol);
}

// find(left, right) -> std::optional<Merge>, a function of the two symbols alone. O(n log n) for n
// symbols. Afterwards the list from symbols[0] along `next` is the result. joined(left, right, id)
// is told every merge just before it is done.
//
// A queued pair is stale unless its place still joins to the same token; this is the rule of
// `tokenizers` (it matters when two different pairs make one token).
template <class Find, class Joined>
void merge_symbols(std::vector<Symbol>& symbols, Find find, Joined joined) {
  struct Candidate {
    Merge merge;
    std::int32_t at;
    bool operator<(const Candidate& other) const {  // std::priority_queue gives the largest
      if (merge.priority != other.merge.priority) return merge.priority > other.merge.priority;
      return at > other.at;
    }
  };
  std::vector<Candidate> candidates;
  candidates.reserve(symbols.size());
  const auto candidate = [&](std::int32_t left) -> std::optional<Candidate> {
    if (left < 0 || symbols[left].next < 0) return std::nullopt;
    const std::optional<Merge> merge = find(symbols[left], symbols[symbols[left].next]);
    if (!merge) return std::nullopt;
    return Candidate{*merge, left};
  };
  for (std::int32_t i = 0; i + 1 < static_cast<std::int32_t>(symbols.size()); ++i) {
    if (const auto found = candidate(i)) candidates.push_back(*found);
  }
  std::priority_queue<Candidate> queue({}, std::move(candidates));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.at];
    if (left.length == 0 || left.next < 0) continue;
    Symbol& right = symbols[left.next];
    const std::optional<Merge> current = find(left, right);
    if (!current || current->id != top.merge.id) continue;
    joined(left, right, top.merge.id);
    left.id = top.merge.id;
    left.length += right.length;
    right.length = 0;
    left.next = right.next;
    if (left.next >= 0) symbols[left.next].previous = top.at;
    if (const auto found = candidate(left.previous)) queue.push(*found);
    if (const auto found = candidate(top.at)) queue.push(*found);
  }
}
template <class Find>
void merge_symbols(std::vector<Symbol>& symbols, Find find) {
  merge_symbols(symbols, find, [](const Symbol&, const Symbol&, TokenId) {});
}

// Enters that `part` was joined to `whole`; a part that is no token (-1) is left out.
inline void note_part(MergeParts& parts, TokenId whole, TokenId part) {
  if (part < 0) return;
  std::vector<TokenId>& known = parts[static_cast<std::size_t>(whole)];
  if (std::find(known.begin(), known.end(), part) == known.end()) known.push_back(part);
}

}  // namespace attar::tokenize
