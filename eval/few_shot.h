// Which examples stand in front of a document, drawn as lm-evaluation-harness draws them.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "eval/python_random.h"

namespace attar::eval {

// Draws for one document after the other from one random stream a task, so what a document gets
// depends on the documents before it.
class FewShotSampler {
 public:
  // `draws_one_more`: the harness draws count + 1 and leaves out the document itself where it finds
  // the evaluated split and the few-shot split to have the same name, which two missing names do.
  FewShotSampler(std::int64_t rows, std::int64_t count, bool draws_one_more, std::uint64_t seed);

  // Rows for the next document; `is_same(row)` says whether that row is the document. Throws
  // UsageError if there are too few rows.
  std::vector<std::int64_t> next(const std::function<bool(std::int64_t)>& is_same);

 private:
  std::int64_t rows_;
  std::int64_t count_;
  bool draws_one_more_;
  PythonRandom random_;
};

}  // namespace attar::eval
