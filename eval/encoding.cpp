#include "eval/encoding.h"

#include <algorithm>
#include <string>

#include "compress/core/errors.h"
#include "eval/python_text.h"

namespace attar::eval {

TokenId prefix_token(const Tokenizer& tokenizer) {
  const std::optional<TokenId> id = tokenizer.bos() ? tokenizer.bos() : tokenizer.eos();
  require(id.has_value(), "eval",
          "the tokenizer names neither BOS nor EOS, so nothing can stand in front of a text; name "
          "one in tokenizer_config.json");
  return *id;
}

std::vector<TokenId> encode_prompt(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, tokenizer.adds_bos());
}

std::vector<EncodedRequest> encode_pairs(const Tokenizer& tokenizer, std::string_view context,
                                         std::span<const std::string> targets) {
  const std::string_view stripped = rstrip(context);
  const bool empty = stripped.empty();
  const std::vector<TokenId> context_ids =
      empty ? std::vector<TokenId>{prefix_token(tokenizer)} : encode_prompt(tokenizer, stripped);
  std::vector<EncodedRequest> requests;
  for (const std::string& target : targets) {
    const std::string whole = std::string(context).append(target);
    EncodedRequest request;
    request.context = context_ids;
    request.target = empty ? tokenizer.encode(whole) : encode_prompt(tokenizer, whole);
    std::size_t known = std::min(context_ids.size(), request.target.size());
    if (empty && known == 1 && request.target[0] != context_ids[0]) known = 0;
    request.target.erase(request.target.begin(), request.target.begin() + known);
    require(!request.target.empty(), "eval", "the continuation '", target,
            "' has no token of its own, so there is nothing to score");
    requests.push_back(std::move(request));
  }
  return requests;
}

EncodedRequest encode_pair(const Tokenizer& tokenizer, std::string_view context,
                           std::string_view target) {
  const std::string text(target);
  return std::move(encode_pairs(tokenizer, context, std::span(&text, 1))[0]);
}

void cut_left(EncodedRequest& request, std::int64_t max_length) {
  const auto target = static_cast<std::int64_t>(request.target.size());
  require<DoesNotFit>(target <= max_length, "eval", "a continuation of ", target,
                      " tokens does not fit into the model's ", max_length, " positions");
  const std::int64_t excess = request.input_tokens() - max_length;
  if (excess > 0) request.context.erase(request.context.begin(), request.context.begin() + excess);
}

std::vector<EncodedRequest> rolling_windows(std::span<const TokenId> ids, TokenId prefix,
                                            std::int64_t max_length) {
  require<UsageError>(max_length >= 2, "eval",
                      "rolling windows need max_length of at least 2, got ", max_length);
  std::vector<EncodedRequest> windows;
  const auto size = static_cast<std::int64_t>(ids.size());
  for (std::int64_t begin = 0; begin < size;) {
    const std::int64_t end = std::min(size, begin + max_length);
    EncodedRequest window;
    if (begin == 0) {
      window.context = {prefix};
    } else {
      const auto first = std::max<std::int64_t>(0, end - 1 - max_length);
      window.context.assign(ids.begin() + first, ids.begin() + begin);
    }
    window.target.assign(ids.begin() + begin, ids.begin() + end);
    windows.push_back(std::move(window));
    begin = end;
  }
  return windows;
}

}  // namespace attar::eval
