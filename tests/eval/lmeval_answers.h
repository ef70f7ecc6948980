// lm-evaluation-harness's own answers, which lie beside the checkout and are not part of it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace attar::eval::testing {

inline std::filesystem::path shared_folder() {
  return std::filesystem::path(ATTAR_SOURCE_DIR) / ".." / "shared";
}
inline std::filesystem::path data_folder() { return shared_folder() / "data" / "eval"; }
inline std::filesystem::path answers_folder() { return shared_folder() / "lmeval"; }

inline nlohmann::json read_answer(const std::string& name) {
  std::ifstream in(answers_folder() / name);
  return nlohmann::json::parse(in);
}

inline std::vector<nlohmann::json> read_answer_lines(const std::string& name) {
  std::ifstream in(answers_folder() / name);
  std::vector<nlohmann::json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(nlohmann::json::parse(line));
  return rows;
}

}  // namespace attar::eval::testing

// First statement of a test that needs the data or the answers.
#define NEEDS_SHARED(place)            \
  if (!std::filesystem::exists(place)) \
  GTEST_SKIP() << "needs " << std::filesystem::path(place).lexically_normal().string()
