// tokenizer.json of Hugging Face `tokenizers` (FORMATS 4.1) -> the parts of a pipeline.
#pragma once

#include <string_view>

#include "compress/tokenize/pipeline.h"

namespace attar::tokenize {

// `where` names the file. Truncation and padding are for batches and are ignored; BPE dropout other
// than 0 is refused. Special ids: only `unknown`, from the model. Throws BadInput.
PipelineParts read_tokenizer_json(const nlohmann::json& file, std::string_view where);

}  // namespace attar::tokenize
