// Runs attar's forward pass when asked, for tests/bench/forward.py, which takes turns with another
// program: each line "calibration" or "evaluation" on stdin is answered by the seconds that it
// took, the processor seconds of all threads, and the sum of the log-probabilities.
//
//   forward_rounds MODEL TOKENS SEQUENCES LENGTH THREADS     (TOKENS: int64 ids in a raw file)
//
// calibration: hidden states of all sequences through all blocks, as a calibration stream makes
// them. evaluation: the same plus the log-probability of every next token.
#include <ATen/ops/empty.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>

#include "compress/core/allocator.h"
#include "compress/core/errors.h"
#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/runtime/transformer.h"

namespace attar {
namespace {

at::Tensor read_ids(const std::string& path, std::int64_t sequences, std::int64_t length) {
  at::Tensor ids = at::empty({sequences, length}, at::kLong);
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(ids.data_ptr()), static_cast<std::streamsize>(ids.nbytes()));
  require<IoError>(file.good(), path, "holds less than ", sequences, " x ", length, " ids");
  return ids;
}

// Each block is read and prepared when its turn comes, as a calibration stream does.
at::Tensor hidden_states(const Model& model, const RopeTable& rope, const at::Tensor& ids) {
  at::Tensor hidden = embed(model.embedding(), ids);
  BlockRunner runner(model.config(), model.block(0), rope);
  for (std::int64_t block = 0; block < model.config().layers; ++block) {
    if (block > 0) runner.take(model.block(block));
    for (std::int64_t first = 0; first < ids.size(0); first += 4) {
      at::Tensor rows = hidden.narrow(0, first, std::min<std::int64_t>(4, ids.size(0) - first));
      runner.advance(rows);
    }
  }
  return hidden;
}

double log_likelihood(const LogitsHead& head, const at::Tensor& hidden, const at::Tensor& ids) {
  double sum = 0;
  for (std::int64_t i = 0; i < ids.size(0); ++i) {
    const std::int64_t count = ids.size(1) - 1;
    const auto* targets = ids.const_data_ptr<std::int64_t>() + i * ids.size(1) + 1;
    for (const auto& row : head.statistics(hidden[i].narrow(0, 0, count),
                                           {targets, static_cast<std::size_t>(count)})) {
      sum += row.target_log_probability;
    }
  }
  return sum;
}

double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

void serve(const std::string& path, const at::Tensor& ids) {
  const Model model(open_model(path));
  const RopeTable rope = rope_table(model.config(), ids.size(1));
  const LogitsHead head(model);
  for (std::string line; std::getline(std::cin, line);) {
    const auto since = std::chrono::steady_clock::now();
    const double processor_since = processor_seconds();
    const at::Tensor hidden = hidden_states(model, rope, ids);
    const double sum = line == "evaluation" ? log_likelihood(head, hidden, ids) : 0;
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - since;
    std::cout << seconds.count() << ' ' << processor_seconds() - processor_since << ' ' << sum
              << std::endl;
  }
}

}  // namespace
}  // namespace attar

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: forward_rounds MODEL TOKENS SEQUENCES LENGTH THREADS\n";
    return 2;
  }
  attar::give_large_blocks_back();
  attar::set_up_numerics();
  attar::set_threads(std::stoi(argv[5]));
  attar::serve(argv[1], attar::read_ids(argv[2], std::stoll(argv[3]), std::stoll(argv[4])));
}
