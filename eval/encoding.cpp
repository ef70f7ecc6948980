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

EncodedRequest encode_pair(const Tokenizer& tokenizer, std::string_view context,
                           std::string_view target) {
  const std::string whole = std::string(context).append(target);
  const std::string_view stripped = rstrip(context);
  EncodedRequest request;
  if (stripped.empty()) {
    request.context = {prefix_token(tokenizer)};
    request.target = tokenizer.encode(whole);
    if (!request.target.empty() && request.target[0] == request.context[0]) {
      request.target.erase(request.target.begin());
    }
  } else {
    request.context = encode_prompt(tokenizer, stripped);
    request.target = encode_prompt(tokenizer, whole);
    const std::size_t known = std::min(request.context.size(), request.target.size());
    request.target.erase(request.target.begin(), request.target.begin() + known);
  }
  require(!request.target.empty(), "eval", "the continuation '", target,
          "' has no token of its own, so there is nothing to score");
  return request;
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
