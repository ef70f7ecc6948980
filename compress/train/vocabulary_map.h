// Which token of a teacher stands for a token of the student.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "compress/tokenize/tokenizer.h"

namespace attar {

// The student's ids [0, common) have counterparts; what follows is padding and never a target.
struct VocabularyMap {
  std::int64_t common = 0;
  at::Tensor teacher_ids;  // [common] int64; undefined: each id stands for itself
};

// Two models with one tokenizer: padding of either is left out.
VocabularyMap same_tokenizer(std::int64_t student_vocabulary, std::int64_t teacher_vocabulary);

// A student whose row i is the teacher's token `tokens[i]` (Model::source_tokens). The teacher's
// distribution is the one over these, made to sum to 1.
VocabularyMap tokens_of_teacher(const std::vector<std::int64_t>& tokens);

// By the spelling of tokens. Throws BadInput naming the first token of the student that the teacher
// does not have: their texts would be cut differently.
VocabularyMap match_tokens(const Tokenizer& student, std::int64_t student_vocabulary,
                           const Tokenizer& teacher, std::int64_t teacher_vocabulary);

}  // namespace attar
