// tokenizer.json of Hugging Face `tokenizers` -> the parts of a pipeline.
#pragma once

#include <string_view>

#include "compress/tokenize/pipeline.h"

namespace attar::tokenize {

// `where` names the file. Truncation and padding are for batches and are ignored; BPE dropout other
// than 0 is refused. Special ids: only `unknown`, from the model. Throws BadInput.
PipelineParts read_tokenizer_json(const nlohmann::json& file, std::string_view where);

// ["a", "b"], or "a b" in files of before 2024. Views lie in the JSON. Throws BadInput.
std::pair<std::string_view, std::string_view> read_merge(const Node& merge);

}  // namespace attar::tokenize
