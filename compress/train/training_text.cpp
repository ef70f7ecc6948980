#include "compress/train/training_text.h"

#include <ATen/ops/empty.h>

#include <numeric>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "compress/io/atomic_file.h"
#include "compress/io/hash.h"
#include "compress/io/json.h"

namespace attar {
namespace {

using Document = std::function<void(std::string_view prompt, std::string_view text)>;

void read_lines(const std::string& path, std::string_view text, const Document& add) {
  std::size_t begin = 0;
  for (std::int64_t line = 1; begin < text.size(); ++line) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view one = text.substr(begin, end - begin);
    begin = end + 1;
    if (one.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const std::string where = path + ": line " + std::to_string(line);
    const nlohmann::json document = io::parse_json(one, where);
    const auto text_of = [&](const char* key) {
      require(document.is_object() && document.contains(key) && document[key].is_string(), where,
              "must be {\"text\": ...} or {\"prompt\": ..., \"completion\": ...} with strings");
      return document[key].get<std::string>();
    };
    const bool asked = document.is_object() && document.contains("prompt");
    add(asked ? text_of("prompt") : std::string(), text_of(asked ? "completion" : "text"));
  }
}

void read_file(const TrainingTextConfig& config, const std::string& path, const Document& add) {
  const std::string text = io::read_file(path, std::uint64_t{1} << 34);
  if (path.ends_with(".jsonl")) return read_lines(path, text, add);
  if (config.separator.empty()) return add({}, text);
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find(config.separator, begin), text.size());
    if (end > begin) add({}, std::string_view(text).substr(begin, end - begin));
    begin = end + config.separator.size();
  }
}

class Collector {
 public:
  Collector(const TrainingTextConfig& config, const Tokenizer& tokenizer)
      : config_(config), tokenizer_(tokenizer) {}

  TrainingTokens finish() {
    io::Sha256 hash;
    hash.update(std::as_bytes(std::span(tokens_.ids)));
    hash.update(std::as_bytes(std::span(tokens_.counts)));
    tokens_.sha256 = hash.hex();
    return std::move(tokens_);
  }

  void add(std::string_view prompt, std::string_view text) {
    if (tokenizer_.adds_bos() && tokenizer_.bos()) push(*tokenizer_.bos(), false);
    for (const TokenId id : tokenizer_.encode(prompt)) push(id, false);
    for (const TokenId id : tokenizer_.encode(text)) push(id, true);
    if (config_.end_of_text && tokenizer_.eos()) push(*tokenizer_.eos(), true);
    ++tokens_.documents;
  }

 private:
  void push(TokenId id, bool counts) {
    tokens_.ids.push_back(id);
    tokens_.counts.push_back(counts ? 1 : 0);
  }

  const TrainingTextConfig& config_;
  const Tokenizer& tokenizer_;
  TrainingTokens tokens_;
};

}  // namespace

void for_each_document(const TrainingTextConfig& config, const Document& read) {
  require<UsageError>(!config.files.empty(), "text",
                      "no text is given; name one or more files, UTF-8 or *.jsonl");
  for (const std::string& path : config.files) read_file(config, path, read);
}

TrainingTokens read_training_text(const TrainingTextConfig& config, const Tokenizer& tokenizer) {
  Collector collector(config, tokenizer);
  for_each_document(
      config, [&](std::string_view prompt, std::string_view text) { collector.add(prompt, text); });
  TrainingTokens tokens = collector.finish();
  require(!tokens.ids.empty(), config.files.front(), "holds no tokens; give text");
  return tokens;
}

std::int64_t Batch::counted() const { return targets.ge(0).sum().item<std::int64_t>(); }

TrainingWindows::TrainingWindows(TrainingTokens tokens, std::int64_t length, std::uint64_t seed,
                                 bool shift)
    : tokens_(std::move(tokens)), length_(length), seed_(seed), shift_(shift) {
  const auto available = static_cast<std::int64_t>(tokens_.ids.size());
  const std::int64_t whole = (available - 1) / length;
  require(whole >= 1, "text", "holds ", available, " tokens, less than one window of ", length,
          " and the token after it; give more text or a smaller length");
  shift_ = shift && whole >= 2;
  count_ = shift_ ? whole - 1 : whole;  // an epoch that starts later has one less
}

// Fisher and Yates; one epoch is kept.
const std::vector<std::int64_t>& TrainingWindows::order_of(std::int64_t epoch) const {
  if (epoch == epoch_) return order_;
  order_.resize(static_cast<std::size_t>(count_));
  std::iota(order_.begin(), order_.end(), 0);
  const CounterRandom random(seed_, "train.order", static_cast<std::uint64_t>(epoch));
  for (std::size_t i = 0; i + 1 < order_.size(); ++i) {
    std::swap(order_[i], order_[i + random.below(i, order_.size() - i)]);
  }
  epoch_ = epoch;
  return order_;
}

std::vector<std::int64_t> TrainingWindows::numbers(std::int64_t step, std::int64_t size) const {
  std::vector<std::int64_t> numbers;
  for (std::int64_t place = step * size; place < (step + 1) * size; ++place) {
    numbers.push_back(order_of(place / count_)[static_cast<std::size_t>(place % count_)]);
  }
  return numbers;
}

at::Tensor TrainingWindows::inputs(std::int64_t first, std::int64_t count) const {
  at::Tensor ids = at::empty({count, length_}, at::kLong);
  auto* out = ids.mutable_data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < count * length_; ++i) {
    out[i] = tokens_.ids[static_cast<std::size_t>(first * length_ + i)];
  }
  return ids;
}

Batch TrainingWindows::batch(std::int64_t step, std::int64_t size) const {
  Batch batch;
  batch.ids = at::empty({size, length_}, at::kLong);
  batch.targets = at::empty({size, length_}, at::kLong);
  auto* ids = batch.ids.mutable_data_ptr<std::int64_t>();
  auto* targets = batch.targets.mutable_data_ptr<std::int64_t>();
  batch.windows = numbers(step, size);
  for (std::int64_t row = 0; row < size; ++row) {
    const std::int64_t epoch = (step * size + row) / count_;
    std::int64_t first = batch.windows[static_cast<std::size_t>(row)] * length_;
    if (shift_) {
      first += static_cast<std::int64_t>(
          CounterRandom(seed_, "train.offset")
              .below(static_cast<std::uint64_t>(epoch), static_cast<std::uint64_t>(length_)));
    }
    for (std::int64_t t = 0; t < length_; ++t) {
      const auto at = static_cast<std::size_t>(first + t);
      *ids++ = tokens_.ids[at];
      *targets++ = tokens_.counts[at + 1] != 0 ? tokens_.ids[at + 1] : -1;
    }
  }
  return batch;
}

}  // namespace attar
