// tokenize_lines FILE [special]: reads a JSON string a line from stdin, writes a line
// {"ids": [...], "text": decode(ids), "full": decode(ids, skip_special = false)} each to stdout.
// FILE: what load_tokenizer reads, or *.gguf. With "special", encode adds special tokens.
#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "compress/io/gguf_file.h"
#include "compress/tokenize/tokenizer.h"

int main(int argc, char** argv) {
  try {
    if (argc < 2) return 2;
    const std::string path = argv[1];
    const bool add_special = argc > 2 && std::string(argv[2]) == "special";
    const auto tokenizer = path.ends_with(".gguf")
                               ? attar::tokenizer_from_gguf(attar::io::GgufFile::open(path))
                               : attar::load_tokenizer(path);
    std::ios::sync_with_stdio(false);
    for (std::string line; std::getline(std::cin, line);) {
      const auto text = nlohmann::json::parse(line).get<std::string>();
      const auto ids = tokenizer->encode(text, add_special);
      const nlohmann::json answer = {
          {"ids", ids}, {"text", tokenizer->decode(ids)}, {"full", tokenizer->decode(ids, false)}};
      std::cout << answer.dump() << '\n';
    }
    return 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 3;
  }
}
