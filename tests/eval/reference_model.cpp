#include "tests/eval/reference_model.h"

#include "compress/core/model.h"
#include "compress/core/numerics.h"
#include "compress/formats/model_file.h"
#include "compress/runtime/transformer.h"

namespace attar::eval::testing {

std::unique_ptr<LanguageModel> open_reference_model() {
  set_up_numerics();
  return make_language_model(Model(open_model(reference_folder())),
                             load_model_tokenizer(reference_folder()));
}

}  // namespace attar::eval::testing
