// Reads prompts and writes tokens when asked, for tests/bench/speed.py, which takes turns with
// llama.cpp: each line on stdin is answered by the seconds that it took and the processor seconds
// of all threads.
//
//   speed_rounds MODEL THREADS [dense]
//
//   prefill N   reads N tokens at once, to the logits after the last
//   decode N    N tokens greedily, one after another
//   probe       bytes a second that the threads read of as many bytes as a token streams by, twice
#include <chrono>
#include <ctime>
#include <iostream>
#include <string>

#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/runtime/speed.h"

namespace attar {
namespace {

double processor_seconds() {
  return static_cast<double>(std::clock()) / static_cast<double>(CLOCKS_PER_SEC);
}

void serve(const std::string& path, Arithmetic arithmetic) {
  const Model model(open_model(path));
  const Transformer transformer(model, arithmetic);
  BandwidthProbe probe(transformer.weight_bytes());
  std::cout << "ready " << transformer.weight_bytes() << std::endl;
  std::string what;
  std::int64_t count = 0;
  while (std::cin >> what) {
    if (what == "probe") {
      const double rate = probe.bytes_per_second();
      std::cout << rate << ' ' << rate << std::endl;
      continue;
    }
    std::cin >> count;
    const double since = processor_seconds();
    const double seconds = what == "prefill" ? prefill_seconds(transformer, count)
                                             : decode_seconds(transformer, count);
    std::cout << seconds << ' ' << processor_seconds() - since << std::endl;
  }
}

}  // namespace
}  // namespace attar

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: speed_rounds MODEL THREADS [dense]\n";
    return 2;
  }
  attar::set_up_numerics();
  attar::set_threads(std::stoi(argv[2]));
  attar::serve(argv[1], argc > 3 ? attar::Arithmetic::kExact : attar::Arithmetic::kQuantized);
}
