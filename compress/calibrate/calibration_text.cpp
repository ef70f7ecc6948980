#include "compress/calibrate/calibration_text.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <numeric>

#include "compress/core/errors.h"
#include "compress/core/random.h"
#include "compress/io/hash.h"
#include "compress/tokenize/documents.h"

namespace attar {
CalibrationTokens calibration_of(at::Tensor ids) {
  io::Sha256 hash;
  const at::Tensor values = ids.to(at::kLong).contiguous();
  hash.update(std::to_string(values.size(0)) + "x" + std::to_string(values.size(1)) + ":");
  hash.update(std::span(static_cast<const std::byte*>(values.const_data_ptr()),
                        static_cast<std::size_t>(values.nbytes())));
  return {values, hash.hex()};
}

CalibrationTokens read_calibration(const CalibrationConfig& config, const Tokenizer& tokenizer,
                                   std::uint64_t seed) {
  require<UsageError>(!config.text.empty(), "calibration.text",
                      "no text is given; name one or more UTF-8 files");
  std::vector<TokenId> stream;
  std::string files;
  for (const std::string& path : config.text) {
    const std::vector<TokenId> ids = is_json_lines(path)
                                         ? read_documents({.paths = {path}}, tokenizer).ids
                                         : tokenizer.encode(read_text_file(path));
    stream.insert(stream.end(), ids.begin(), ids.end());
    files += (files.empty() ? "'" : ", '") + path + "'";
  }
  const auto windows = static_cast<std::int64_t>(stream.size()) / config.length;
  require(windows >= config.sequences, "calibration.text", files, " holds ", stream.size(),
          " tokens, that is ", windows, " windows of ", config.length,
          ", but calibration.sequences"
          " asks for ",
          config.sequences, "; give more text or fewer sequences");

  // A random subset of the windows, in the order of the text.
  std::vector<std::int64_t> order(static_cast<std::size_t>(windows));
  std::iota(order.begin(), order.end(), 0);
  const CounterRandom random(seed, "calibration.windows");
  for (std::size_t i = 0; i < static_cast<std::size_t>(config.sequences); ++i) {
    std::swap(order[i], order[i + random.below(i, order.size() - i)]);
  }
  order.resize(static_cast<std::size_t>(config.sequences));
  std::sort(order.begin(), order.end());

  at::Tensor ids = at::empty({config.sequences, config.length}, at::kLong);
  auto* out = ids.mutable_data_ptr<std::int64_t>();
  for (const std::int64_t window : order) {
    out = std::copy_n(stream.begin() + window * config.length, config.length, out);
  }
  CalibrationTokens tokens = calibration_of(ids);
  tokens.batch = config.sequences_a_forward();
  return tokens;
}

}  // namespace attar
