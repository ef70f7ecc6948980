// A model made ready to answer: weights prepared once, a KV cache that keeps what the last question
// shared with the next.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <span>
#include <vector>

#include "compress/core/block_runner.h"
#include "compress/core/model.h"
#include "compress/kernels/log_softmax/log_softmax.h"
#include "compress/runtime/language_model.h"

namespace attar {

// Final norm and head: hidden states -> logits, a chunk of rows at a time.
class LogitsHead {
 public:
  explicit LogitsHead(const Model& model, Arithmetic arithmetic = Arithmetic::kExact);

  // [rows, hidden] float32 -> [rows, vocabulary] float32.
  at::Tensor logits(const at::Tensor& hidden) const;

  // Statistics of the logits of every row, never holding more than kChunkRows of them. `targets`
  // [rows], or empty. Throws NumericRefusal on a non-finite logit.
  static constexpr std::int64_t kChunkRows = 256;
  std::vector<kernels::LogitStats> statistics(const at::Tensor& hidden,
                                              std::span<const std::int64_t> targets) const;

  std::int64_t vocabulary() const { return head_.outputs(); }
  std::int64_t bytes() const { return head_.bytes(); }

 private:
  at::Tensor norm_;      // [hidden]
  PreparedWeight head_;  // [vocabulary, hidden]
  double eps_;
  mutable at::Tensor chunk_;  // [rows, vocabulary]: the logits of the last chunk, used again
};

// All blocks of a model, prepared: in float32, 4 bytes a weight, or as the codes of the file.
class Transformer {
 public:
  // `cache` is what keys and values are kept and read as.
  explicit Transformer(const Model& model, Arithmetic arithmetic = Arithmetic::kExact,
                       CacheType cache = CacheType::kFloat32);

  // What has been read so far, a cache a block.
  struct State {
    std::vector<TokenId> tokens;
    std::vector<KeyValues> caches;
  };
  State start() const;
  // Bytes that keys and values take, with the room that they have to grow.
  static std::int64_t cache_bytes(const State& state);
  // Forgets everything after the first `length` tokens.
  static void rewind(State& state, std::size_t length);

  // Reads on; hidden states before the final norm, [tokens, hidden].
  at::Tensor extend(State& state, std::span<const TokenId> tokens) const;

  // Reads several continuations of the state side by side, which stays as it is. The hidden states
  // of all their tokens one after the other, [sum of lengths, hidden].
  at::Tensor branch(const State& state, std::span<const std::vector<TokenId>> branches) const;

  const LogitsHead& head() const { return head_; }
  const ModelConfig& config() const { return config_; }

  // Bytes of weights that one token streams by: all blocks and the head.
  std::int64_t weight_bytes() const;

 private:
  void reserve(State& state, std::size_t tokens) const;
  at::Tensor embed_tokens(std::span<const TokenId> tokens) const;  // [1, T, hidden]

  ModelConfig config_;
  Weight embedding_;
  LogitsHead head_;
  std::vector<BlockRunner> blocks_;
};

std::unique_ptr<LanguageModel> make_language_model(const Model& model,
                                                   std::shared_ptr<const Tokenizer> tokenizer,
                                                   CacheType cache = CacheType::kFloat32);
// The same on codes (Arithmetic::kQuantized): faster, and near the model that the file describes.
std::unique_ptr<LanguageModel> make_quantized_language_model(
    const Model& model, std::shared_ptr<const Tokenizer> tokenizer,
    CacheType cache = CacheType::kFloat32);

// Of the two the one named "dense" or "quantized". Throws UsageError for another name.
using MakeLanguageModel = std::unique_ptr<LanguageModel> (*)(const Model&,
                                                             std::shared_ptr<const Tokenizer>,
                                                             CacheType);
MakeLanguageModel language_model_on(std::string_view runtime, std::string_view where);

}  // namespace attar
