#include "compress/train/vocabulary_map.h"

#include <ATen/ops/empty.h>

#include <algorithm>

#include "compress/core/errors.h"

namespace attar {

VocabularyMap same_tokenizer(std::int64_t student_vocabulary, std::int64_t teacher_vocabulary) {
  return {std::min(student_vocabulary, teacher_vocabulary), {}};
}

VocabularyMap tokens_of_teacher(const std::vector<std::int64_t>& tokens) {
  VocabularyMap map{std::ssize(tokens), at::empty({std::ssize(tokens)}, at::kLong)};
  std::copy(tokens.begin(), tokens.end(), map.teacher_ids.mutable_data_ptr<std::int64_t>());
  return map;
}

VocabularyMap match_tokens(const Tokenizer& student, std::int64_t student_vocabulary,
                           const Tokenizer& teacher, std::int64_t teacher_vocabulary) {
  VocabularyMap map;
  map.common = std::min(student_vocabulary, student.vocabulary_size());
  map.teacher_ids = at::empty({map.common}, at::kLong);
  auto* out = map.teacher_ids.mutable_data_ptr<std::int64_t>();
  bool same = true;
  for (std::int64_t id = 0; id < map.common; ++id) {
    const std::string_view spelling = student.token(static_cast<TokenId>(id));
    // A number without a token is never a target; any row of the teacher does.
    const auto found = spelling.empty() ? std::optional<TokenId>(0) : teacher.id_of(spelling);
    require(found && *found < teacher_vocabulary, "distill.teacher", "token '", spelling, "' (id ",
            id,
            ") of the student is none of the teacher's; a teacher needs the same "
            "tokenizer, or one with more tokens");
    out[id] = *found;
    same = same && *found == id;
  }
  if (same) map.teacher_ids = at::Tensor();
  return map;
}

}  // namespace attar
